"""Moves: one transition of a job that runs, by whoever holds it, as one guarded statement.

No row changed means that somebody else was first. The guards are built from `states.JOB_MOVES`, so the table there is
the only place that says what may follow what.
"""

from typing import Any

import msgspec
from sqlalchemy import Connection

from machineshop.errors import NotFound, StaleAttempt
from machineshop.states import JobVerb, source, target
from machineshop.store.ends import Ends, Moved
from machineshop.store.job_rows import NEXT_CHANGE, decode, encode
from machineshop.store.statement import Statement

# All that a submitter and its workers note about a job: it goes along wherever the job is shown.
INFO_LIMIT_BYTES = 256 * 1024


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who says that it holds a job: what must match for its word to count."""

    deployment_id: str | None = None
    """Known from a worker key."""
    replica_id: str | None = None
    """Known from a worker key."""
    token: str | None = None
    """Sent by workers that know of attempts."""


def end(
    conn: Connection,
    verb: JobVerb,
    project_id: str,
    job_id: str,
    holder: Holder,
    now: float,
    changed: dict[str, Any],
    ends: Ends,
) -> Moved:
    """End an attempt; `ends` counts it. Raises as `move`."""
    moved = move(conn, verb, project_id, job_id, holder, now, changed)
    ends.add(verb, job_id, moved, now)
    return moved


def move(
    conn: Connection,
    verb: JobVerb,
    project_id: str,
    job_id: str,
    holder: Holder,
    now: float,
    changed: dict[str, Any],
) -> Moved:
    """A transition of a running job by whoever holds it, with the columns that change besides.

    Raises:
        NotFound: No such job.
        StaleAttempt: The holder does not hold it.
    """
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


def with_info(conn: Connection, project_id: str, job_id: str, info: dict[str, Any]) -> dict[str, Any]:
    """The column to change where there is something to say; where it would be too much, what was said before goes."""
    if not info:
        return {}
    merged = merged_info(conn, project_id, job_id, info)
    return {"info": merged if len(merged) <= INFO_LIMIT_BYTES else encode(info)}


def merged_info(conn: Connection, project_id: str, job_id: str, info: dict[str, Any]) -> str:
    """The job's info with new keys laid over it."""
    row = _INFO.one(conn, {"project_id": project_id, "job_id": job_id})
    return encode(decode("{}" if row is None else row[0]) | info)


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


_ONE = "project_id = :project_id AND id = :job_id"
_STATE = Statement(f"SELECT state FROM jobs WHERE {_ONE}")
_INFO = Statement(f"SELECT info FROM jobs WHERE {_ONE}")
