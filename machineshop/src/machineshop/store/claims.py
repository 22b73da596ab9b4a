"""Claims: a worker takes the next jobs of a queue, each a new attempt."""

import logging
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from machineshop.models import Claim, Job, Worker
from machineshop.states import JobVerb, source, target
from machineshop.store import jobs, lines, losses, queues
from machineshop.store.job_rows import COLUMNS, NEXT_CHANGE, job_of
from machineshop.store.lines import Line, LineKey
from machineshop.store.statement import Statement

log = logging.getLogger(__name__)


# So many jobs are claimed before their sizes are looked at, and no more after so many bytes of payloads.
CLAIM_CHUNK = 100
CLAIM_BYTES = 16 * 1024 * 1024
# After so many jobs that were over their deadline a claim ends: the control loop fails the others many at a time.
LATE_AT_MOST = 100


_CLAIMED = target(JobVerb.CLAIM)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker asks for."""

    worker: Worker
    token: str
    """What fences the attempts of this claim."""
    now: float
    expires_at: float
    max_jobs: int = 1
    again: str | None = None
    """What the tokens of the same claim begin with, where the worker has made it before and got no answer."""


class Look(NamedTuple):
    """What a worker found."""

    claims: list[Claim]
    ended_early: bool
    """It found none, as too many were late: behind them there may be one."""


def claim(conn: Connection, deployment_id: str, wanted: Wanted) -> list[Claim]:
    """Hand the next jobs to a worker, in their order, or those that it was handed and never heard of.

    A replica that never renews works on one job at a time: what it still holds when it asks again, it has lost.
    """
    return look(conn, deployment_id, wanted).claims


def look(conn: Connection, deployment_id: str, wanted: Wanted) -> Look:
    """As `claim`, and whether a worker that got nothing should soon look again."""
    if wanted.again is not None and (held := _handed_before(conn, deployment_id, wanted, wanted.again)):
        return Look(held, ended_early=False)
    worker = wanted.worker
    if worker.replica_id is not None and worker.claim_timeout_seconds is None:
        losses.lose_held_unrenewed(conn, worker, wanted.now)
    claims: list[Claim] = []
    size = late = 0
    mean_seconds: float | None = None
    while len(claims) < wanted.max_jobs and (waiting := lines.first_two(conn, deployment_id)):
        first, second = waiting[0], waiting[1] if len(waiting) > 1 else None
        guess_seconds = first.mean_seconds
        if guess_seconds is None:
            if mean_seconds is None:
                mean_seconds = queues.mean_seconds(conn, deployment_id) or lines.FIRST_GUESS_SECONDS
            guess_seconds = mean_seconds
        limit = min(wanted.max_jobs - len(claims), CLAIM_CHUNK)
        if limit > 1:
            limit = lines.turn(first, second, min(limit, lines.room(conn, deployment_id, first)), guess_seconds)
        taken = _take(conn, deployment_id, first, limit, guess_seconds, wanted)
        if not taken:
            log.error("queue.counts_wrong deployment_id=%s line=%s", deployment_id, first)
            break
        in_time = _in_time(conn, taken, wanted.now)
        claims += in_time
        late += len(taken) - len(in_time)
        size += sum(len(bytes(claim.job.payload)) for claim in taken)
        if size > CLAIM_BYTES or late >= LATE_AT_MOST:
            return Look(claims, ended_early=not claims)
    return Look(claims, ended_early=False)


def _handed_before(conn: Connection, deployment_id: str, wanted: Wanted, mark: str) -> list[Claim]:
    """What earlier tries of the same claim hold, now with the token of this one."""
    values = {
        "deployment_id": deployment_id,
        "token": wanted.token,
        "expires_at": wanted.expires_at,
        "first": mark,
        "behind": mark + "g",  # no hexadecimal digit comes after it
    }
    held = sorted((job_of(row) for row in _CLAIM_AGAIN.all(conn, values)), key=lambda job: job.sequence)
    return [Claim(job, wanted.token) for job in held]


def _in_time(conn: Connection, taken: list[Claim], now: float) -> list[Claim]:
    """Those that are not over their deadline already; the others fail, before anybody works on them."""
    late = [claim for claim in taken if claim.job.deadline_at is not None and claim.job.deadline_at <= now]
    if not late:
        return taken
    losses.overrun(conn, late, now)
    return [claim for claim in taken if claim not in late]


def submit_and_claim(conn: Connection, job: Job, wanted: Wanted) -> tuple[Job, list[Claim]]:
    """Add a job and claim the next ones for a worker that waits: as `jobs.insert`, then `claim`.

    Where nobody waits that is this job, and it begins its life as a running one.
    """
    renews = wanted.worker.claim_timeout_seconds is not None
    if (
        job.idempotency_key is None
        and renews
        and wanted.again is None
        and (claim_of_it := _pass_through(conn, job, wanted))
    ):
        return job, [claim_of_it]
    (stored,) = jobs.insert(conn, [job])
    return stored, claim(conn, job.deployment_id, wanted)


def _pass_through(conn: Connection, job: Job, wanted: Wanted) -> Claim | None:
    charged_seconds = lines.pass_through(conn, job.deployment_id, LineKey(job.fair_key, job.priority))
    if charged_seconds is None:
        return None
    change = queues.admit_running(conn, job.deployment_id, job.model)
    worker = wanted.worker
    row = _INSERT_RUNNING.one(
        conn,
        {
            **jobs.row_of(job, change),
            "token": wanted.token,
            "replica_id": worker.replica_id,
            "hostname": worker.hostname,
            "claim_timeout_seconds": worker.claim_timeout_seconds,
            "now": wanted.now,
            "expires_at": wanted.expires_at,
            "charged_seconds": charged_seconds,
        },
    )
    running = msgspec.structs.replace(
        job,
        state=_CLAIMED,
        attempt=1,
        claimed_at=wanted.now,
        claim_expires_at=wanted.expires_at,
        change=change,
        sequence=0 if row is None else row[0],
    )
    return Claim(running, wanted.token)


def _take(
    conn: Connection, deployment_id: str, line: Line, number: int, guess_seconds: float, wanted: Wanted
) -> list[Claim]:
    """Claim up to `number` jobs of one line."""
    worker = wanted.worker
    values: dict[str, Any] = {
        "deployment_id": deployment_id,
        "priority": line.priority,
        "fair_key": line.fair_key,
        "token": wanted.token,
        "replica_id": worker.replica_id,
        "hostname": worker.hostname,
        "claim_timeout_seconds": worker.claim_timeout_seconds,
        "now": wanted.now,
        "expires_at": wanted.expires_at,
        "guess_seconds": guess_seconds,
        "number": number,
    }
    statement = _CLAIM_ONE if number == 1 else _CLAIM_MANY
    rows = statement.all(conn, values)
    if rows:
        lines.take(conn, deployment_id, line, len(rows), len(rows) * guess_seconds)
        queues.tally(conn, deployment_id, pending=-len(rows), running=len(rows))
    claimed = sorted((job_of(row) for row in rows), key=lambda job: job.sequence)
    return [Claim(job, wanted.token) for job in claimed]


_INSERT_RUNNING = Statement(
    "INSERT INTO jobs (id, project_id, deployment_id, model, state, priority, fair_key, payload, info, retries, "
    "releases, attempt, attempt_token, replica_id, hostname, claim_timeout_seconds, claimed_at, claim_expires_at, "
    "charged_seconds, has_files, cancel_requested, deadline_at, idempotency_key, webhook_url, resubmit_of, change, "
    f"created_at) VALUES (:id, :project_id, :deployment_id, :model, '{target(JobVerb.CLAIM)}', :priority, :fair_key, "
    ":payload, :info, 0, 0, 1, :token, :replica_id, :hostname, :claim_timeout_seconds, :now, :expires_at, "
    ":charged_seconds, 0, 0, :deadline_at, :idempotency_key, :webhook_url, :resubmit_of, :change, :created_at) "
    "RETURNING sequence"
)


_WAITING = (
    f"SELECT sequence FROM jobs WHERE deployment_id = :deployment_id AND state = '{source(JobVerb.CLAIM)}' "
    "AND priority = :priority"
)
_FIRST = f"{_WAITING} AND fair_key = :fair_key ORDER BY sequence LIMIT"
# The same, put so that only the index of what is pending is in this order: the planner would rather walk along all
# jobs there have ever been until it meets a pending one, and most of those at the front are over.
_FIRST_ON_POSTGRES = f"{_WAITING} AND fair_key BETWEEN :fair_key AND :fair_key ORDER BY fair_key, sequence LIMIT"
_UPDATE = (
    f"UPDATE jobs SET state = '{target(JobVerb.CLAIM)}', attempt = attempt + 1, attempt_token = :token, "
    "replica_id = :replica_id, hostname = :hostname, claim_timeout_seconds = :claim_timeout_seconds, "
    "claimed_at = :now, claim_expires_at = :expires_at, progress_at = NULL, has_files = 0, "
    f"charged_seconds = :guess_seconds, change = {NEXT_CHANGE} WHERE sequence"
)
_SET_AGAIN = "SET attempt_token = :token, claim_expires_at = :expires_at"
_HELD = (
    f"WHERE deployment_id = :deployment_id AND state = '{_CLAIMED}' AND attempt_token >= :first "
    "AND attempt_token < :behind"
)
_CLAIM_AGAIN = Statement(
    # The planner would rather walk along all jobs there have ever been than along those that run.
    f"UPDATE jobs INDEXED BY ix_jobs_running {_SET_AGAIN} {_HELD} RETURNING {COLUMNS}",
    postgres=f"UPDATE jobs {_SET_AGAIN} {_HELD} RETURNING {COLUMNS}",
)
_CLAIM_ONE = Statement(
    f"{_UPDATE} = ({_FIRST} 1) RETURNING {COLUMNS}",
    postgres=f"{_UPDATE} = ({_FIRST_ON_POSTGRES} 1) RETURNING {COLUMNS}",
)
_CLAIM_MANY = Statement(
    f"{_UPDATE} IN ({_FIRST} :number) RETURNING {COLUMNS}",
    # As an array, so that it is looked up by the key however wrong the planner's idea of the numbers is.
    postgres=f"{_UPDATE} = ANY (ARRAY({_FIRST_ON_POSTGRES} :number)) RETURNING {COLUMNS}",
)
