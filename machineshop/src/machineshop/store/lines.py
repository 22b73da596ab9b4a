"""Lines: the jobs of one fair key and priority in a queue. They decide whose job is next.

Start-time fair queuing: a line's virtual time is the worker seconds that it has had, divided by its weight. Among the
lines of the highest priority that have a job, the one with the least virtual time goes first. A claim charges what the
line's jobs took on average; once the attempt has ended, the charge is made what it really took, and a job that runs
longer than that is charged while it runs. A line that was empty begins at the least virtual time of those that were
not, so nobody saves up time by waiting. With one line this is plain order of submission.
"""

import math
from typing import NamedTuple

from sqlalchemy import Connection

from machineshop.store.statement import Statement

# What a job is taken to need before any has ended.
FIRST_GUESS_SECONDS = 1.0
# How much the last job counts in a line's mean.
_WEIGHT_OF_LAST = 0.2


class Line(NamedTuple):
    """A line that has a job which may be claimed."""

    fair_key: str
    priority: int
    weight: float
    max_running: int | None
    pending: int
    virtual_time: float
    mean_seconds: float | None


class LineKey(NamedTuple):
    """Which line of a deployment's queue."""

    fair_key: str
    priority: int


def join(conn: Connection, deployment_id: str, key: LineKey, number: int, change: int) -> None:
    """Add `number` pending jobs to a line; `change` says when, for lines that are otherwise equal."""
    values = _values(deployment_id, key) | {"number": number, "change": change}
    row = _JOIN.one(conn, values)
    if row is None:
        row = _INSERT.one(conn, values)
    if row is not None and row[0] is not None:
        _REFRESH.run(conn, values)


def leave(conn: Connection, deployment_id: str, key: LineKey, number: int) -> None:
    """Take pending jobs out of a line that nobody has claimed."""
    _LEAVE.run(conn, _values(deployment_id, key) | {"number": number})


def first_two(conn: Connection, deployment_id: str) -> list[Line]:
    """The line whose turn it is, and the one after it; fewer where there are not so many."""
    return [Line(*row) for row in _FIRST_TWO.all(conn, {"deployment_id": deployment_id})]


def turn(first: Line, second: Line | None, limit: int, guess_seconds: float) -> int:
    """How many jobs the first line may have before it is the second one's turn, `limit` at most.

    Args:
        first: The line whose turn it is.
        second: The line after it, if there is one.
        limit: How many jobs are wanted.
        guess_seconds: What one job of the first line is charged.
    """
    number = min(limit, first.pending)
    if second is None or second.priority != first.priority:
        return number
    step = guess_seconds / first.weight
    lead = second.virtual_time - first.virtual_time
    if step <= 0 or lead / step >= number:
        return number
    return max(1, min(number, math.ceil(lead / step)))


def room(conn: Connection, deployment_id: str, line: Line) -> int:
    """How many more jobs of this line may run."""
    if line.max_running is None:
        return line.pending
    row = _RUNNING_OF_KEY.one(conn, {"deployment_id": deployment_id, "fair_key": line.fair_key})
    return line.max_running - (0 if row is None else row[0])


def take(conn: Connection, deployment_id: str, line: Line, number: int, charge_seconds: float) -> None:
    """Take `number` jobs out of a line to run them, charged with `charge_seconds` in all."""
    values = _values(deployment_id, LineKey(line.fair_key, line.priority))
    _TAKE.run(conn, values | {"number": number, "charge": charge_seconds})
    if line.max_running is not None:
        _REFRESH.run(conn, values)


def settle(
    conn: Connection,
    deployment_id: str,
    key: LineKey,
    *,
    back: int,
    charge_seconds: float,
    seconds: float | None,
) -> bool:
    """Count the end of an attempt; whether the line has a cap, under which there is room now.

    Args:
        conn: The transaction.
        deployment_id: Whose queue it is.
        key: The job's line.
        back: 1 where the job waits again.
        charge_seconds: What is left to charge; below 0 where too much was.
        seconds: How long the job ran, where that says how long such jobs run.
    """
    values = _values(deployment_id, key)
    row = _SETTLE.one(conn, values | {"back": back, "charge": charge_seconds, "seconds": seconds})
    capped = row is not None and row[0] is not None
    if capped:
        _REFRESH.run(conn, values)
    return capped


def charge(conn: Connection, deployment_id: str, key: LineKey, seconds: float) -> None:
    """Charge a line for a job that runs on."""
    _CHARGE.run(conn, _values(deployment_id, key) | {"charge": seconds})


def apply_settings(conn: Connection, deployment_id: str) -> None:
    """Give every line the weight and the cap that its key has now."""
    _APPLY.run(conn, {"deployment_id": deployment_id})
    _REFRESH_ALL.run(conn, {"deployment_id": deployment_id})


def remove_idle(conn: Connection, deployment_id: str) -> int:
    """Forget the lines that are empty and owe nothing to those that are not; returns how many."""
    return _REMOVE_IDLE.run(conn, {"deployment_id": deployment_id}).rowcount


def moving_mean(weight_of_last: float) -> str:
    """SQL for `mean_seconds` with `:seconds` taken in, where that is known."""
    return (
        "CASE WHEN :seconds IS NULL THEN mean_seconds WHEN mean_seconds IS NULL THEN :seconds "
        f"ELSE mean_seconds + {weight_of_last} * (:seconds - mean_seconds) END"
    )


def _values(deployment_id: str, key: LineKey) -> dict[str, object]:
    return {"deployment_id": deployment_id, "fair_key": key.fair_key, "priority": key.priority}


_ONE = "deployment_id = :deployment_id AND fair_key = :fair_key AND priority = :priority"
_PEERS = "l.deployment_id = :deployment_id AND l.priority = :priority"
# Where a line begins that was empty: beside those that were not, or where the last ones ended.
_BEGIN = (
    f"coalesce((SELECT min(l.virtual_time) FROM lines l WHERE {_PEERS} AND l.pending + l.running > 0), "
    f"(SELECT max(l.virtual_time) FROM lines l WHERE {_PEERS}), 0)"
)
_JOIN = Statement(
    "UPDATE lines SET pending = pending + :number, ready = 1, "
    "since = CASE WHEN pending + running > 0 THEN since ELSE :change END, "
    "virtual_time = CASE WHEN pending + running > 0 THEN virtual_time ELSE (SELECT max(begins.at) FROM "
    f"(SELECT lines.virtual_time AS at UNION ALL SELECT {_BEGIN}) AS begins) END "
    f"WHERE {_ONE} RETURNING max_running"
)
_WEIGHT_OF_KEY = (
    "coalesce((SELECT k.weight FROM fair_keys k WHERE k.deployment_id = {0}.deployment_id "
    "AND k.fair_key = {1}.fair_key), 1)"
)
_CAP_OF_KEY = (
    "CASE WHEN {1}.fair_key = '' THEN NULL ELSE coalesce((SELECT k.max_running FROM fair_keys k "
    "WHERE k.deployment_id = {0}.deployment_id AND k.fair_key = {1}.fair_key), (SELECT q.max_running_per_key "
    "FROM queues q WHERE q.deployment_id = {0}.deployment_id)) END"
)
_INSERT = Statement(
    "INSERT INTO lines (deployment_id, fair_key, priority, weight, max_running, pending, running, virtual_time, "
    f"ready, since) SELECT n.deployment_id, n.fair_key, :priority, {_WEIGHT_OF_KEY.format('n', 'n')}, "
    f"{_CAP_OF_KEY.format('n', 'n')}, :number, 0, {_BEGIN}, 1, :change "
    "FROM (SELECT :deployment_id AS deployment_id, :fair_key AS fair_key) AS n RETURNING max_running"
)
_LEAVE = Statement(
    "UPDATE lines SET pending = pending - :number, ready = CASE WHEN pending > :number THEN ready ELSE 0 END "
    f"WHERE {_ONE}"
)
_FIRST_TWO = Statement(
    f"SELECT {', '.join(Line._fields)} FROM lines WHERE deployment_id = :deployment_id AND ready = 1 "
    "ORDER BY priority DESC, virtual_time, since LIMIT 2"
)
_SUM_OF_KEY = (
    "(SELECT sum(l.running) FROM lines l WHERE l.deployment_id = lines.deployment_id AND l.fair_key = lines.fair_key)"
)
_RUNNING_OF_KEY = Statement(
    "SELECT coalesce(sum(running), 0) FROM lines WHERE deployment_id = :deployment_id AND fair_key = :fair_key"
)
_TAKE = Statement(
    "UPDATE lines SET pending = pending - :number, running = running + :number, "
    "virtual_time = virtual_time + :charge / weight, ready = CASE WHEN pending > :number THEN 1 ELSE 0 END "
    f"WHERE {_ONE}"
)
_SETTLE = Statement(
    "UPDATE lines SET running = running - 1, pending = pending + :back, "
    f"virtual_time = virtual_time + :charge / weight, mean_seconds = {moving_mean(_WEIGHT_OF_LAST)}, "
    "ready = CASE WHEN pending + :back > 0 THEN 1 ELSE 0 END "
    f"WHERE {_ONE} RETURNING max_running"
)
_CHARGE = Statement(f"UPDATE lines SET virtual_time = virtual_time + :charge / weight WHERE {_ONE}")
_MAY_RUN = f"CASE WHEN pending > 0 AND (max_running IS NULL OR {_SUM_OF_KEY} < max_running) THEN 1 ELSE 0 END"
_REFRESH = Statement(
    f"UPDATE lines SET ready = {_MAY_RUN} WHERE deployment_id = :deployment_id AND fair_key = :fair_key"
)
_REFRESH_ALL = Statement(f"UPDATE lines SET ready = {_MAY_RUN} WHERE deployment_id = :deployment_id")
_APPLY = Statement(
    f"UPDATE lines SET weight = {_WEIGHT_OF_KEY.format('lines', 'lines')}, "
    f"max_running = {_CAP_OF_KEY.format('lines', 'lines')} WHERE deployment_id = :deployment_id"
)
_REMOVE_IDLE = Statement(
    "DELETE FROM lines WHERE deployment_id = :deployment_id AND pending + running = 0 "
    "AND virtual_time <= coalesce((SELECT min(l.virtual_time) "
    "FROM lines l WHERE l.deployment_id = lines.deployment_id AND l.priority = lines.priority "
    "AND l.pending + l.running > 0), virtual_time)"
)
