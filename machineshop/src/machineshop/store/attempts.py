"""Attempts: what happens to a job while a worker holds it.

Each transition is one guarded statement: no row changed means that somebody else was first. The guards are built from
`states.JOB_MOVES`, so the table there is the only place that says what may follow what.
"""

from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from machineshop.errors import NotFound, PayloadTooLarge, StaleAttempt
from machineshop.models import Claim, Worker
from machineshop.states import JobVerb, source, target
from machineshop.store import chunks, files, lines, queues
from machineshop.store.chunks import Chunks
from machineshop.store.ends import Ends, Moved
from machineshop.store.job_rows import NEXT_CHANGE, decode, encode
from machineshop.store.lines import LineKey
from machineshop.store.statement import Statement

# A job whose worker was lost this often is taken for the cause of it.
MAX_RETRIES = 3
# A job that was handed back this often is counted as lost from then on.
MAX_RELEASES = 10
# All that a submitter and its workers note about a job: it goes along wherever the job is shown.
INFO_LIMIT_BYTES = 256 * 1024
# How much longer than it was charged for a job may run before its line is charged again.
CHARGE_STEP_SECONDS = 1.0
# The same for a claim that nobody renews: the control loop looks after it, and each charge is a write of its own.
UNRENEWED_CHARGE_STEP_SECONDS = 10.0


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who says that it holds a job: what must match for its word to count."""

    deployment_id: str | None = None
    """Known from a worker key."""
    replica_id: str | None = None
    """Known from a worker key."""
    token: str | None = None
    """Sent by workers that know of attempts."""


class _Held(NamedTuple):
    """An attempt that is to be ended without a word from its worker."""

    id: str
    project_id: str
    attempt: int
    attempt_token: str
    replica_id: str | None
    retries: int
    info: str
    cancel_requested: bool
    deadline_at: float | None
    deployment_deleted: bool


class Reclaimed(NamedTuple):
    """What a look at a queue's claims has ended."""

    back: int
    """How many jobs wait again."""
    ended: int
    """How many are over."""
    replicas: frozenset[str]
    """Replicas that did not take up a cancel: they are to be replaced."""


def renew(
    conn: Connection,
    project_id: str,
    job_id: str,
    holder: Holder,
    info: dict[str, Any],
    progress_at: float | None,
    now: float,
    given: Chunks | None = None,
) -> bool:
    """Extend the claim by its own length, merge `info`, keep what was given; True when a cancel was asked for.

    Raises:
        NotFound: No such job.
        StaleAttempt: The holder does not hold it.
        PayloadTooLarge: The info, or what was given, would be too much.
    """
    changed: dict[str, Any] = {} if progress_at is None else {"progress_at": progress_at}
    if info:
        changed["info"] = merged = _merged_info(conn, project_id, job_id, info)
        if len(merged) > INFO_LIMIT_BYTES:
            raise PayloadTooLarge(what="The job's info", limit_bytes=INFO_LIMIT_BYTES, mend="Emit less of it.")
    if given is not None:
        chunks.check_room(conn, job_id, given)
    moved = _move(conn, JobVerb.RENEW, project_id, job_id, holder, now, changed)
    if given is not None:
        chunks.append(conn, job_id, moved.attempt, given)
    if info:
        queues.tally(conn, moved.deployment_id)
    more_seconds = now - moved.claimed_at - moved.charged_seconds
    if more_seconds > CHARGE_STEP_SECONDS:
        _charge(conn, moved.deployment_id, job_id, LineKey(moved.fair_key, moved.priority), more_seconds)
    return bool(moved.cancel_requested)


def finish(
    conn: Connection,
    project_id: str,
    job_id: str,
    holder: Holder,
    outputs: msgspec.Raw,
    info: dict[str, Any],
    now: float,
    ends: Ends,
) -> None:
    """Store the result, with the files that the attempt has uploaded. Raises as `renew`."""
    changed = {"outputs": bytes(outputs).decode(), **_with_info(conn, project_id, job_id, info)}
    moved = _end(conn, JobVerb.FINISH, project_id, job_id, holder, now, changed, ends)
    if moved.has_files:
        files.publish_attempt(conn, job_id, moved.attempt)


def fail(
    conn: Connection, project_id: str, job_id: str, holder: Holder, info: dict[str, Any], now: float, ends: Ends
) -> None:
    """Store the model's failure, whose text is in `info["error"]`. Raises as `renew`."""
    _end(conn, JobVerb.FAIL, project_id, job_id, holder, now, _with_info(conn, project_id, job_id, info), ends)


def abandon(
    conn: Connection, project_id: str, job_id: str, holder: Holder, info: dict[str, Any], now: float, ends: Ends
) -> None:
    """The worker took up the user's cancel. Raises as `renew`."""
    _end(conn, JobVerb.ABANDON, project_id, job_id, holder, now, _with_info(conn, project_id, job_id, info), ends)


def release(conn: Connection, project_id: str, job_id: str, holder: Holder, now: float, ends: Ends) -> None:
    """Put the job back unharmed. Raises as `renew`.

    Where nobody wants it any longer, because it is to be canceled or its deployment is gone, it is canceled instead.
    A job that was handed back too often counts as lost.
    """
    row = _RELEASING.one(conn, {"project_id": project_id, "job_id": job_id})
    unwanted, releases, retries = row or (False, 0, 0)
    verb, changed = JobVerb.RELEASE, {}
    if unwanted:
        verb = JobVerb.ABANDON
    elif releases >= MAX_RELEASES:
        verb = JobVerb.LOSE
        if retries >= MAX_RETRIES:
            verb = JobVerb.GIVE_UP
            error = f"The job was handed back {releases} times, and lost {retries} times: it was given up."
            changed = _with_info(conn, project_id, job_id, {"error": error})
    _end(conn, verb, project_id, job_id, holder, now, changed, ends)


def overrun(conn: Connection, claims: list[Claim], now: float) -> None:
    """Fail jobs that were claimed after their deadline."""
    ends = Ends()
    for claim in claims:
        job = claim.job
        info = encode(job.info | {"error": "The deadline passed while the job waited for a worker."})
        _end(conn, JobVerb.OVERRUN, job.project_id, job.id, Holder(token=claim.token), now, {"info": info}, ends)
    ends.write(conn)


def reclaim(conn: Connection, deployment_id: str, now: float) -> Reclaimed:
    """End what is overdue in one queue: claims that have run out, deadlines, cancels that nobody took up.

    Jobs whose claims nobody renews are charged for here while they run on.
    """
    values = {"deployment_id": deployment_id, "now": now}
    for job_id, priority, fair_key, seconds in _UNCHARGED.all(conn, values):
        _charge(conn, deployment_id, job_id, LineKey(fair_key, priority), seconds)
    ends = Ends()
    overrun = _held(conn, _OVERRUN, values)
    for held in overrun:
        error = f"The deadline passed in attempt {held.attempt}, before the job had ended."
        _take_away(conn, JobVerb.OVERRUN, held, now, ends, error)
    forced = _held(conn, _FORCED, values)
    for held in forced:
        _take_away(conn, JobVerb.FORCE, held, now, ends)
    ends.write(conn)
    expired = _held(conn, _EXPIRED, values)
    back = _lose(conn, expired, "its claim expired: the worker stopped renewing it", now)
    replicas = frozenset(held.replica_id for held in forced if held.replica_id is not None)
    return Reclaimed(back, len(overrun) + len(forced) + len(expired) - back, replicas)


def deployments_to_reclaim(conn: Connection, now: float) -> list[str]:
    """The deployments in whose queues something is overdue."""
    return [deployment_id for (deployment_id,) in _TO_RECLAIM.all(conn, {"now": now})]


def lose_replica(conn: Connection, replica_id: str, now: float, how: str | None = None) -> int:
    """End the claims of a replica that is gone; returns how many jobs wait again."""
    held = _held(conn, _HELD_BY, {"replica_id": replica_id})
    cause = "its replica ended in the middle of it"
    return _lose(conn, held, cause if how is None else f"{cause} ({how})", now)


def deployments_of_replica(conn: Connection, replica_id: str) -> list[str]:
    """The deployments whose jobs a replica holds."""
    return [deployment_id for (deployment_id,) in _DEPLOYMENTS_OF_REPLICA.all(conn, {"replica_id": replica_id})]


def lose_held_unrenewed(conn: Connection, worker: Worker, now: float) -> None:
    """End what a worker that never renews still holds."""
    held = _held(conn, _HELD_UNRENEWED, {"replica_id": worker.replica_id, "hostname": worker.hostname})
    _lose(conn, held, "its worker asked for another job without ending it", now)


def end_all(conn: Connection, deployment_id: str, now: float) -> None:
    """End the running jobs of a deployment that is gone with all its replicas."""
    ends = Ends()
    for held in _held(conn, _HELD_IN, {"deployment_id": deployment_id}):
        _end_lost(conn, held, "its deployment was deleted", now, ends, may_retry=False)
    ends.write(conn)


def _charge(conn: Connection, deployment_id: str, job_id: str, line: LineKey, seconds: float) -> None:
    """Charge a line for a job that runs longer than it was charged for."""
    _CHARGE.run(conn, {"job_id": job_id, "seconds": seconds})
    lines.charge(conn, deployment_id, line, seconds)


def _held(conn: Connection, query: Statement, values: dict[str, Any]) -> list[_Held]:
    return [_Held(*row) for row in query.all(conn, values)]


def _lose(conn: Connection, held: list[_Held], cause: str, now: float) -> int:
    """End lost attempts; returns how many of their jobs wait again."""
    back, ends = 0, Ends()
    for lost in held:
        may_retry = lost.retries < MAX_RETRIES and not lost.deployment_deleted
        back += _end_lost(conn, lost, cause, now, ends, may_retry=may_retry) is JobVerb.LOSE
    ends.write(conn)
    return back


def _end_lost(conn: Connection, lost: _Held, cause: str, now: float, ends: Ends, *, may_retry: bool) -> JobVerb:
    """One lost attempt: again, or canceled where that was asked for, or failed."""
    if lost.cancel_requested:
        verb, error = JobVerb.ABANDON, None
    elif may_retry:
        verb, error = JobVerb.LOSE, None
    else:
        why = "its deployment was deleted" if lost.deployment_deleted else cause
        verb, error = JobVerb.GIVE_UP, f"The job was lost in attempt {lost.attempt}: {why}."
    _take_away(conn, verb, lost, now, ends, error)
    return verb


def _take_away(conn: Connection, verb: JobVerb, held: _Held, now: float, ends: Ends, error: str | None = None) -> None:
    """End an attempt without its worker."""
    changed = {} if error is None else {"info": encode(decode(held.info) | {"error": error})}
    _end(conn, verb, held.project_id, held.id, Holder(token=held.attempt_token), now, changed, ends)


def _end(
    conn: Connection,
    verb: JobVerb,
    project_id: str,
    job_id: str,
    holder: Holder,
    now: float,
    changed: dict[str, Any],
    ends: Ends,
) -> Moved:
    """End an attempt; `ends` counts it."""
    moved = _move(conn, verb, project_id, job_id, holder, now, changed)
    ends.add(verb, job_id, moved, now)
    return moved


def _move(
    conn: Connection,
    verb: JobVerb,
    project_id: str,
    job_id: str,
    holder: Holder,
    now: float,
    changed: dict[str, Any],
) -> Moved:
    """A transition of a running job by whoever holds it, as one guarded statement."""
    values = {"project_id": project_id, "job_id": job_id, "now": now, **changed}
    conditions = []
    for column, value in (
        ("attempt_token", holder.token),
        ("replica_id", holder.replica_id),
        ("deployment_id", holder.deployment_id),
    ):
        if value is not None:
            conditions.append(column)
            values[f"held_{column}"] = value
    row = _move_statement(verb, tuple(conditions), tuple(changed)).one(conn, values)
    if row is None:
        raise _refusal(conn, project_id, job_id)
    return Moved(*row)


def _refusal(conn: Connection, project_id: str, job_id: str) -> NotFound | StaleAttempt:
    row = _STATE.one(conn, {"project_id": project_id, "job_id": job_id})
    return NotFound(what="job", id=job_id) if row is None else StaleAttempt(state=row[0])


_statements: dict[tuple[JobVerb, tuple[str, ...], tuple[str, ...]], Statement] = {}


def _move_statement(verb: JobVerb, conditions: tuple[str, ...], changed: tuple[str, ...]) -> Statement:
    """The guarded UPDATE of a verb, made once for each shape."""
    key = (verb, conditions, changed)
    if key not in _statements:
        sets = [f"{column} = :{column}" for column in changed] + _SETS[verb]
        if verb is not JobVerb.RENEW or "info" in changed:  # nobody sees that a claim was extended
            sets.append(f"change = {NEXT_CHANGE}")
        guards = "".join(f" AND {column} = :held_{column}" for column in conditions)
        _statements[key] = Statement(
            f"UPDATE jobs SET {', '.join(sets)} "
            f"WHERE id = :job_id AND project_id = :project_id AND state = '{source(verb)}'{guards} "
            f"RETURNING {', '.join(Moved._fields)}"
        )
    return _statements[key]


_UNCLAIMED = ["attempt_token = NULL", "claim_expires_at = NULL"]
_BACK = ["state = 'pending'", "cancel_due_at = NULL", *_UNCLAIMED]


def _ended(verb: JobVerb) -> list[str]:
    return [f"state = '{target(verb)}'", "done_at = :now", *_UNCLAIMED]


_SETS: dict[JobVerb, list[str]] = {
    # A claim without a length of its own holds as long as its worker lives: nothing to extend.
    JobVerb.RENEW: [
        "claim_expires_at = CASE WHEN claim_timeout_seconds IS NULL "
        "THEN claim_expires_at ELSE :now + claim_timeout_seconds END"
    ],
    JobVerb.RELEASE: ["releases = releases + 1", *_BACK],
    JobVerb.LOSE: ["retries = retries + 1", *_BACK],
} | {
    verb: _ended(verb)
    for verb in (
        JobVerb.FINISH,
        JobVerb.FAIL,
        JobVerb.ABANDON,
        JobVerb.GIVE_UP,
        JobVerb.FORCE,
        JobVerb.OVERRUN,
    )
}


def _with_info(conn: Connection, project_id: str, job_id: str, info: dict[str, Any]) -> dict[str, Any]:
    """The column to change where there is something to say; where it would be too much, what was said before goes."""
    if not info:
        return {}
    merged = _merged_info(conn, project_id, job_id, info)
    return {"info": merged if len(merged) <= INFO_LIMIT_BYTES else encode(info)}


def _merged_info(conn: Connection, project_id: str, job_id: str, info: dict[str, Any]) -> str:
    """The job's info with new keys laid over it."""
    row = _INFO.one(conn, {"project_id": project_id, "job_id": job_id})
    return encode(decode("{}" if row is None else row[0]) | info)


_CHARGE = Statement("UPDATE jobs SET charged_seconds = charged_seconds + :seconds WHERE id = :job_id")
_ONE = "project_id = :project_id AND id = :job_id"
_STATE = Statement(f"SELECT state FROM jobs WHERE {_ONE}")
_INFO = Statement(f"SELECT info FROM jobs WHERE {_ONE}")
# Of a job: the user wants it canceled, or its deployment is deleted.
_DELETED = "EXISTS (SELECT 1 FROM deployments d WHERE d.id = jobs.deployment_id AND d.deleted_at IS NOT NULL)"
_RELEASING = Statement(f"SELECT cancel_requested = 1 OR {_DELETED}, releases, retries FROM jobs WHERE {_ONE}")
_HELD_COLUMNS = ", ".join(_Held._fields).replace("deployment_deleted", _DELETED)
_SELECT_HELD = f"SELECT {_HELD_COLUMNS} FROM jobs WHERE state = 'running'"
# What runs has a claim: said so that the index of what runs is taken, and not one of all jobs there have ever been.
_OF_QUEUE = "deployment_id = :deployment_id AND claim_expires_at > 0"
_EXPIRED = Statement(f"{_SELECT_HELD} AND {_OF_QUEUE} AND claim_expires_at <= :now LIMIT 1000")
_FORCED = Statement(f"{_SELECT_HELD} AND {_OF_QUEUE} AND cancel_due_at <= :now LIMIT 1000")
_IS_UNCHARGED = (
    f"claim_timeout_seconds IS NULL AND :now - claimed_at - charged_seconds > {UNRENEWED_CHARGE_STEP_SECONDS}"
)
_UNCHARGED = Statement(
    "SELECT id, priority, fair_key, :now - claimed_at - charged_seconds FROM jobs "
    f"WHERE state = 'running' AND {_OF_QUEUE} AND {_IS_UNCHARGED} LIMIT 1000"
)
_OVERRUN = Statement(f"{_SELECT_HELD} AND {_OF_QUEUE} AND deadline_at <= :now LIMIT 1000")
_HELD_BY = Statement(f"{_SELECT_HELD} AND replica_id = :replica_id")
_HELD_UNRENEWED = Statement(
    f"{_SELECT_HELD} AND replica_id = :replica_id AND hostname = :hostname AND claim_timeout_seconds IS NULL"
)
_HELD_IN = Statement(f"{_SELECT_HELD} AND {_OF_QUEUE}")
_DEPLOYMENTS_OF_REPLICA = Statement(
    "SELECT DISTINCT deployment_id FROM jobs WHERE state = 'running' AND replica_id = :replica_id"
)
_TO_RECLAIM = Statement(
    "SELECT deployment_id FROM jobs WHERE state = 'running' "
    f"AND (claim_expires_at <= :now OR cancel_due_at <= :now OR {_IS_UNCHARGED}) "
    "UNION SELECT deployment_id FROM jobs WHERE deadline_at <= :now AND deadline_at IS NOT NULL AND done_at IS NULL"
)
