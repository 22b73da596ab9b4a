"""What a pending job stands behind, and what tells how long that takes. Read only; `services/waiting` judges it.

Every read here is bounded, however long the queue is: jobs ahead are counted in their line's own index and no further
than `MAX_POSITION`, and the rest comes from the lines' counts.
"""

import math
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection

from machineshop.models import Job, QueueCounts
from machineshop.store import lines, queues
from machineshop.store.statement import Statement

# Counting further than this to say somebody's position would cost more than it tells.
MAX_POSITION = 10_000
# How many of the last jobs tell how long jobs take.
HISTORY = 50
# How many ended jobs are looked at for those: after a queue was cleared, the last ones have never run.
_LOOKED_AT = 1_000
# Where more jobs run than this, nobody asks when each began.
_RUNNING_LIMIT = 10_000


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """What stands before a pending job, as things are."""

    jobs: int | None
    """How many jobs are claimed before it; None: more than `MAX_POSITION`."""
    higher_priority: int
    """How many of them have a higher priority."""
    in_line: int
    """How many of them are in its own line."""
    key_running: int
    """How many jobs of its fair key run."""
    key_cap: int | None
    """How many of them may."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What tells how quickly a queue moves."""

    counts: QueueCounts
    durations: tuple[float, ...]
    """How many seconds each of the last jobs took that were done."""
    last_done_at: float | None
    """When the last of them was done."""
    last_was_replicas: bool
    """Whether a replica has done that, and not a worker from outside."""
    claimed_at: tuple[float, ...]
    """When each of the running jobs was claimed, of so many of them at most."""
    key_claimed_at: tuple[float, ...]
    """The same for those of one fair key."""


class _Peer(NamedTuple):
    """Another line of the same priority that has a job which may be claimed."""

    pending: int
    weight: float
    virtual_time: float
    mean_seconds: float | None
    since: int
    fair_key: str


def ahead(conn: Connection, job: Job) -> Ahead:
    """What stands before a pending job now: jobs of higher priority, of its own line, and of lines before that."""
    values = {
        "deployment_id": job.deployment_id,
        "priority": job.priority,
        "fair_key": job.fair_key,
        "sequence": job.sequence,
        "limit": MAX_POSITION + 1,
    }
    higher = _sum(conn, _HIGHER, values)
    in_line = _sum(conn, _IN_LINE, values)
    before = higher + in_line
    line = _LINE.one(conn, values)
    if line is not None and before <= MAX_POSITION:
        before += _of_peers(conn, values, _Peer(*line), in_line)
    key_running, key_cap = _KEY.all(conn, values)[0]
    return Ahead(
        jobs=before if before <= MAX_POSITION else None,
        higher_priority=higher,
        in_line=in_line,
        key_running=key_running,
        key_cap=key_cap,
    )


def pace(conn: Connection, deployment_id: str, fair_key: str) -> Pace:
    """How quickly a queue moves."""
    values = {"deployment_id": deployment_id, "looked_at": _LOOKED_AT, "limit": HISTORY}
    ended = _DURATIONS.all(conn, values)
    last_done_at = ended[0][0] if ended else None
    last_by = _DONE_BY.all(conn, {"deployment_id": deployment_id, "done_at": last_done_at})
    running = _RUNNING.all(conn, {"deployment_id": deployment_id, "limit": _RUNNING_LIMIT})
    return Pace(
        counts=queues.counts(conn, deployment_id),
        durations=tuple(max(0.0, seconds) for _, seconds in ended),
        last_done_at=last_done_at,
        last_was_replicas=any(replica_id is not None for (replica_id,) in last_by),
        claimed_at=tuple(claimed_at for claimed_at, _ in running),
        key_claimed_at=tuple(claimed_at for claimed_at, key in running if key == fair_key),
    )


def _of_peers(conn: Connection, values: dict[str, object], mine: _Peer, in_line: int) -> int:
    """How many jobs of other lines go before a job of `mine` that `in_line` others of it go before.

    Each claim moves its line on by what its jobs take on average, and the line that is furthest back has the next one.
    """
    guess_seconds = queues.mean_seconds(conn, str(values["deployment_id"])) or lines.FIRST_GUESS_SECONDS
    tag = mine.virtual_time + in_line * _step(mine, guess_seconds)
    total = 0
    for peer in map(_Peer._make, _PEERS.all(conn, values | {"tag": tag})):
        total += _claims_until(tag, peer, guess_seconds, goes_first=peer[-2:] < mine[-2:])
        if total > MAX_POSITION:
            break
    return total


def _claims_until(tag: float, peer: _Peer, guess_seconds: float, *, goes_first: bool) -> int:
    """How many claims of a line begin at a virtual time before `tag`, or at it where it goes first among equals."""
    lead, step = tag - peer.virtual_time, _step(peer, guess_seconds)
    if lead < 0:
        return 0
    if step <= 0 or lead / step >= peer.pending:
        return peer.pending
    whole = math.floor(lead / step)
    return whole + (lead > whole * step or goes_first)


def _step(line: _Peer, guess_seconds: float) -> float:
    return (guess_seconds if line.mean_seconds is None else line.mean_seconds) / line.weight


def _sum(conn: Connection, statement: Statement, values: dict[str, object]) -> int:
    number: int = statement.all(conn, values)[0][0]
    return number


_OF_LINE = "deployment_id = :deployment_id AND priority = :priority AND fair_key = :fair_key"
_LINE = Statement(f"SELECT {', '.join(_Peer._fields)} FROM lines WHERE {_OF_LINE}")
# A line that may be claimed from has at least one job, so no more of them are needed to come to the limit.
_HIGHER = Statement(
    "SELECT coalesce(sum(pending), 0) FROM (SELECT pending FROM lines WHERE deployment_id = :deployment_id "
    "AND ready = 1 AND priority > :priority ORDER BY priority DESC, virtual_time, since LIMIT :limit) AS higher"
)
_PEERS = Statement(
    f"SELECT {', '.join(_Peer._fields)} FROM lines WHERE deployment_id = :deployment_id AND ready = 1 "
    "AND priority = :priority AND virtual_time <= :tag AND fair_key <> :fair_key "
    "ORDER BY priority DESC, virtual_time, since LIMIT :limit"
)
_WAITING = (
    "SELECT sequence FROM jobs WHERE deployment_id = :deployment_id AND state = 'pending' AND priority = :priority AND"
)
_IN_LINE = Statement(
    f"SELECT count(*) FROM ({_WAITING} fair_key = :fair_key AND sequence < :sequence ORDER BY sequence LIMIT :limit) "
    "AS before",
    # Put so that only the index of what is pending is in this order (see `claims`); with the job's own number in it,
    # the planner would take the index of all jobs, and read those that are over.
    postgres=f"SELECT count(*) FROM ({_WAITING} fair_key BETWEEN :fair_key AND :fair_key ORDER BY fair_key, sequence "
    "LIMIT :limit) AS first WHERE sequence < :sequence",
)
_KEY = Statement(
    "SELECT coalesce(sum(running), 0), max(max_running) FROM lines "
    "WHERE deployment_id = :deployment_id AND fair_key = :fair_key"
)
_DURATIONS = Statement(
    "SELECT done_at, done_at - claimed_at FROM (SELECT state, claimed_at, done_at FROM jobs "
    "WHERE deployment_id = :deployment_id AND done_at IS NOT NULL ORDER BY done_at DESC LIMIT :looked_at) AS ended "
    "WHERE state = 'done' LIMIT :limit"
)
_DONE_BY = Statement(
    "SELECT replica_id FROM jobs WHERE deployment_id = :deployment_id AND done_at = :done_at AND state = 'done' LIMIT 1"
)
# What runs has a claim: said so that the index of what runs is taken, and not one of all jobs there have ever been.
_RUNNING = Statement(
    "SELECT claimed_at, fair_key FROM jobs WHERE state = 'running' AND deployment_id = :deployment_id "
    "AND claim_expires_at > 0 LIMIT :limit"
)
