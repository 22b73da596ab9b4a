"""Lines: the jobs of one fair key and priority in a queue. They decide whose job is next.

Start-time fair queuing: a line's virtual time is the worker seconds that it has had, divided by its weight. Among the
lines of the highest priority that have a job, the one with the least virtual time goes first. A claim charges what the
line's jobs took on average; once the attempt has ended, the charge is made what it really took, and a job that runs
longer than that is charged while it runs. With one line this is plain order of submission.

A line that begins to wait, because it was empty or its key was at its cap, begins no earlier than those that wait have
come to (`_begin`): nobody saves up time by having no jobs, or by not being allowed to run more of them.
"""

import math
from typing import NamedTuple

from sqlalchemy import Connection

from machineshop.store.counts import MEAN, Count
from machineshop.store.statement import Statement

# What a job is taken to need before any has ended.
FIRST_GUESS_SECONDS = 1.0
# How many of the lines that wait are asked how far they have come: the last one that had a turn is nearly always there.
_FRONT = 8


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
        _OPEN.run(conn, values)


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


def pass_through(conn: Connection, deployment_id: str, key: LineKey) -> float | None:
    """Take a job through a line at once, where nobody waits in the whole queue; the seconds that it is charged.

    None, and nothing is changed: somebody waits, the line has a cap, or there is no such line yet.
    """
    row = _PASS_THROUGH.one(conn, _values(deployment_id, key))
    return None if row is None else row[0]


def room(conn: Connection, deployment_id: str, line: Line) -> int:
    """How many more jobs of this line may run."""
    if line.max_running is None:
        return line.pending
    row = _RUNNING_OF_KEY.one(conn, {"deployment_id": deployment_id, "fair_key": line.fair_key})
    return line.max_running - (0 if row is None else row[0])


def take(conn: Connection, deployment_id: str, line: Line, number: int, charge_seconds: float) -> None:
    """Take `number` jobs out of a line to run them, charged with `charge_seconds` in all."""
    values = _values(deployment_id, LineKey(line.fair_key, line.priority))
    before_last = charge_seconds * (number - 1) / number
    _TAKE.run(conn, values | {"number": number, "charge": charge_seconds, "before_last": before_last})
    if line.max_running is not None:
        _CLOSE.run(conn, values)


def settle(conn: Connection, deployment_id: str, key: LineKey, count: Count) -> bool:
    """Count attempts of a line that are over; whether the line has a cap, under which there is room now."""
    values = _values(deployment_id, key) | {
        "ended": count.ended,
        "back": count.back,
        "charge": count.charge_seconds,
        "surcharge": count.surcharge_seconds,
        **count.mean_values(),
    }
    statement = _SETTLE_BACK if count.back else _SETTLE
    row = statement.one(conn, values)
    capped = row is not None and row[0] is not None
    if capped:
        _OPEN.run(conn, values)
    return capped


def charge(conn: Connection, deployment_id: str, key: LineKey, seconds: float) -> None:
    """Charge a line for a job that runs on."""
    _CHARGE.run(conn, _values(deployment_id, key) | {"charge": seconds})


def apply_settings(conn: Connection, deployment_id: str) -> None:
    """Give every line the weight and the cap that its key has now."""
    for statement in (_APPLY, _CLOSE_ALL, _OPEN_ALL):
        statement.run(conn, {"deployment_id": deployment_id})


def remove_idle(conn: Connection, deployment_id: str) -> int:
    """Forget the lines that are empty and would begin where a new one does; returns how many."""
    removed = 0
    for (priority,) in _IDLE_PRIORITIES.all(conn, {"deployment_id": deployment_id}):
        removed += _REMOVE_IDLE.run(conn, {"deployment_id": deployment_id, "priority": priority}).rowcount
    return removed


def _values(deployment_id: str, key: LineKey) -> dict[str, object]:
    return {"deployment_id": deployment_id, "fair_key": key.fair_key, "priority": key.priority}


_ONE = "deployment_id = :deployment_id AND fair_key = :fair_key AND priority = :priority"


def _begin(priority: str) -> str:
    """SQL for where a line begins that has not been waiting: at the virtual time of the last claim.

    No line that waits is behind that, and it is at least what the last claim of each of them began with; a few lines
    at the front tell it well enough. Where nobody waits, whoever comes begins beside the last of all.
    """
    peers = f"l.deployment_id = :deployment_id AND l.priority = {priority}"
    front = (
        "SELECT l.virtual_time AS at, coalesce(l.start_tag, l.virtual_time) AS tag FROM lines l "
        # In the order of the index of those that wait, so that no other is taken.
        f"WHERE {peers} AND l.ready = 1 ORDER BY l.virtual_time, l.since LIMIT {_FRONT}"
    )
    return (
        f"coalesce((SELECT LEAST(min(f.at), max(f.tag)) FROM ({front}) f), "
        f"(SELECT max(l.virtual_time) FROM lines l WHERE {peers}), 0)"
    )


def _statement(text: str) -> Statement:
    """A statement with LEAST and GREATEST, which are min and max in SQLite."""
    return Statement(text.replace("LEAST(", "min(").replace("GREATEST(", "max("), postgres=text)


_JOIN = _statement(
    "UPDATE lines SET pending = pending + :number, ready = CASE WHEN max_running IS NULL THEN 1 ELSE ready END, "
    "since = CASE WHEN pending > 0 THEN since ELSE :change END, "
    "start_tag = CASE WHEN pending > 0 THEN start_tag END, virtual_time = "
    f"CASE WHEN pending > 0 THEN virtual_time ELSE GREATEST(virtual_time, {_begin(':priority')}) END "
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
_INSERT = _statement(
    "INSERT INTO lines (deployment_id, fair_key, priority, weight, max_running, pending, running, virtual_time, "
    f"ready, since) SELECT n.deployment_id, n.fair_key, :priority, {_WEIGHT_OF_KEY.format('n', 'n')}, "
    f"n.max_running, :number, 0, {_begin(':priority')}, CASE WHEN n.max_running IS NULL THEN 1 ELSE 0 END, :change "
    f"FROM (SELECT g.deployment_id, g.fair_key, {_CAP_OF_KEY.format('g', 'g')} AS max_running "
    "FROM (SELECT :deployment_id AS deployment_id, :fair_key AS fair_key) g) n RETURNING max_running"
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
    "start_tag = virtual_time + :before_last / weight, virtual_time = virtual_time + :charge / weight, "
    f"ready = CASE WHEN pending > :number THEN 1 ELSE 0 END WHERE {_ONE}"
)
# What `_JOIN` and `_TAKE` come to where no line waits: the line begins beside the last of all.
_PASS_THROUGH = Statement(
    "UPDATE lines SET running = running + 1, start_tag = p.at, "
    f"virtual_time = p.at + coalesce(lines.mean_seconds, p.mean_seconds, {FIRST_GUESS_SECONDS}) / weight "
    "FROM (SELECT q.mean_seconds, (SELECT max(l.virtual_time) FROM lines l WHERE l.deployment_id = :deployment_id "
    "AND l.priority = :priority) AS at FROM queues q WHERE q.deployment_id = :deployment_id AND q.pending = 0) AS p "
    f"WHERE {_ONE} AND lines.pending = 0 AND max_running IS NULL RETURNING (virtual_time - start_tag) * weight"
)
_SETTLED = f"mean_seconds = {MEAN}, start_tag = start_tag + :surcharge / weight"
_SETTLE = Statement(
    f"UPDATE lines SET running = running - :ended, virtual_time = virtual_time + :charge / weight, {_SETTLED} "
    f"WHERE {_ONE} RETURNING max_running"
)
# A line with a cap waits only once `_OPEN` has found room under that.
_SETTLE_BACK = _statement(
    f"UPDATE lines SET running = running - :ended, pending = pending + :back, {_SETTLED}, "
    "virtual_time = CASE WHEN pending > 0 THEN virtual_time + :charge / weight "
    f"ELSE GREATEST(virtual_time + :charge / weight, {_begin(':priority')}) END, "
    f"ready = CASE WHEN max_running IS NULL THEN 1 ELSE ready END WHERE {_ONE} RETURNING max_running"
)
_CHARGE = Statement(
    "UPDATE lines SET virtual_time = virtual_time + :charge / weight, start_tag = start_tag + :charge / weight "
    f"WHERE {_ONE}"
)
_IS_AT_CAP = f"{_SUM_OF_KEY} >= max_running"
# Of a key that has come to its cap, or has room under it again.
_CLOSED = f"UPDATE lines SET ready = 0 WHERE deployment_id = :deployment_id AND ready = 1 AND {_IS_AT_CAP}"
_OPENED = (
    f"UPDATE lines SET ready = 1, virtual_time = GREATEST(virtual_time, {_begin('lines.priority')}) "
    "WHERE deployment_id = :deployment_id AND ready = 0 AND pending > 0 "
    f"AND (max_running IS NULL OR NOT {_IS_AT_CAP})"
)
_CLOSE, _OPEN = Statement(f"{_CLOSED} AND fair_key = :fair_key"), _statement(f"{_OPENED} AND fair_key = :fair_key")
_CLOSE_ALL, _OPEN_ALL = Statement(_CLOSED), _statement(_OPENED)
_APPLY = Statement(
    f"UPDATE lines SET weight = {_WEIGHT_OF_KEY.format('lines', 'lines')}, "
    f"max_running = {_CAP_OF_KEY.format('lines', 'lines')} WHERE deployment_id = :deployment_id"
)
_IDLE = "deployment_id = :deployment_id AND pending + running = 0"
_IDLE_PRIORITIES = Statement(f"SELECT DISTINCT priority FROM lines WHERE {_IDLE}")
_REMOVE_IDLE = _statement(
    f"DELETE FROM lines WHERE {_IDLE} AND priority = :priority AND virtual_time <= {_begin(':priority')}"
)
