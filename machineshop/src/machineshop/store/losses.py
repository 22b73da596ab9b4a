"""Losses: attempts that end without a word from their worker, since it is gone, silent, late, or does not stop."""

import math
from typing import Any, NamedTuple

from sqlalchemy import Connection

from machineshop.models import Claim, Worker
from machineshop.states import JobVerb
from machineshop.store.charges import IS_UNCHARGED, charge_unrenewed
from machineshop.store.ends import Ends
from machineshop.store.job_rows import decode, encode
from machineshop.store.moves import Holder, end
from machineshop.store.statement import Statement

# A job whose worker was lost this often is taken for the cause of it.
MAX_RETRIES = 3
# So long a worker that could not be heard has to take up a cancel: a heartbeat, and the time that sprocket gives its
# model to stop. It may have other jobs in hand, which would be lost with its replica.
CANCEL_HEARD_SECONDS = 15.0


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


def overrun(conn: Connection, claims: list[Claim], now: float) -> None:
    """Fail jobs that were claimed after their deadline."""
    ends = Ends()
    for claim in claims:
        job = claim.job
        info = encode(job.info | {"error": "The deadline passed while the job waited for a worker."})
        end(conn, JobVerb.OVERRUN, job.project_id, job.id, Holder(token=claim.token), now, {"info": info}, ends)
    ends.write(conn)


def reclaim(conn: Connection, deployment_id: str, now: float, heard_seconds: float = math.inf) -> Reclaimed:
    """End what is overdue in one queue: claims that have run out, deadlines, cancels that nobody took up.

    Jobs whose claims nobody renews are charged for here while they run on.

    Args:
        conn: The transaction.
        deployment_id: Whose queue it is.
        now: Seconds since the epoch.
        heard_seconds: For how long workers could renew their claims.
    """
    values = {"deployment_id": deployment_id, "now": now, "heard_seconds": heard_seconds}
    charge_unrenewed(conn, deployment_id, now)
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


def deployments_to_reclaim(conn: Connection, now: float, heard_seconds: float = math.inf) -> list[str]:
    """The deployments in whose queues something is overdue; arguments as `reclaim`."""
    values = {"now": now, "heard_seconds": heard_seconds}
    return [deployment_id for (deployment_id,) in _TO_RECLAIM.all(conn, values)]


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
    end(conn, verb, held.project_id, held.id, Holder(token=held.attempt_token), now, changed, ends)


# Of a job: that its deployment is deleted.
DELETED = "EXISTS (SELECT 1 FROM deployments d WHERE d.id = jobs.deployment_id AND d.deleted_at IS NOT NULL)"
_HELD_COLUMNS = ", ".join(_Held._fields).replace("deployment_deleted", DELETED)
_SELECT_HELD = f"SELECT {_HELD_COLUMNS} FROM jobs WHERE state = 'running'"
# What runs has a claim: said so that the index of what runs is taken, and not one of all jobs there have ever been.
_OF_QUEUE = "deployment_id = :deployment_id AND claim_expires_at > 0"
# Its worker had all of the claim's time to renew it.
_IS_EXPIRED = "claim_expires_at <= :now AND (claim_timeout_seconds IS NULL OR claim_timeout_seconds <= :heard_seconds)"
_EXPIRED = Statement(f"{_SELECT_HELD} AND {_OF_QUEUE} AND {_IS_EXPIRED} LIMIT 1000")
# Its worker had time to be told of the cancel, also where the server was away meanwhile.
_IS_FORCED = (
    f"cancel_due_at <= :now AND (claimed_at >= :now - :heard_seconds OR :heard_seconds >= {CANCEL_HEARD_SECONDS})"
)
_FORCED = Statement(f"{_SELECT_HELD} AND {_OF_QUEUE} AND {_IS_FORCED} LIMIT 1000")
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
    f"AND ({_IS_EXPIRED} OR {_IS_FORCED} OR {IS_UNCHARGED}) "
    "UNION SELECT deployment_id FROM jobs WHERE deadline_at <= :now AND deadline_at IS NOT NULL AND done_at IS NULL"
)
