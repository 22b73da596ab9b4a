"""Withdrawals: jobs that end before anybody has claimed them, and the wish that a running one ends."""

from collections import Counter
from typing import Any

from sqlalchemy import Connection

from machineshop.states import JobVerb, source, target
from machineshop.store import lines, losses, queues, webhooks
from machineshop.store.job_rows import NEXT_CHANGE, decode, encode
from machineshop.store.lines import LineKey
from machineshop.store.statement import Statement

# So many jobs are withdrawn in one transaction: others want to write as well.
CHUNK = 5_000


def cancel(conn: Connection, deployment_id: str, job_id: str, now: float, due_at: float) -> None:
    """Cancel a pending job, or ask the worker of a running one to stop by `due_at`."""
    values = {"deployment_id": deployment_id, "job_id": job_id, "now": now, "due_at": due_at}
    rows = _CANCEL.all(conn, values)
    if rows:
        _count_out(conn, deployment_id, rows, now)
    elif _REQUEST_CANCEL.run(conn, values).rowcount:
        queues.tally(conn, deployment_id)


def clear(conn: Connection, deployment_id: str, up_to: int | None, now: float) -> int:
    """Cancel some of the pending jobs up to the sequence number `up_to`; returns how many, 0 where none is left."""
    values = {"deployment_id": deployment_id, "now": now, "up_to": 2**62 if up_to is None else up_to, "limit": CHUNK}
    rows = _CLEAR.all(conn, values)
    _count_out(conn, deployment_id, rows, now)
    return len(rows)


def last_sequence(conn: Connection, deployment_id: str) -> int:
    """The number of the job that was submitted last."""
    row = _LAST.one(conn, {"deployment_id": deployment_id})
    return 0 if row is None or row[0] is None else row[0]


def miss(conn: Connection, deployment_id: str, now: float) -> int:
    """Fail the pending jobs whose deadline has passed; returns how many."""
    rows = []
    for job_id, info in _OVERDUE.all(conn, {"deployment_id": deployment_id, "now": now, "limit": CHUNK}):
        text = encode(decode(info) | {"error": "The deadline passed while the job waited for a worker."})
        rows += _MISS.all(conn, {"job_id": job_id, "now": now, "info": text})
    _count_out(conn, deployment_id, rows, now)
    return len(rows)


def end_all(conn: Connection, deployment_id: str, now: float) -> bool:
    """End what is left of the jobs of a deployment that is gone; whether there may be more."""
    losses.end_all(conn, deployment_id, now)
    return clear(conn, deployment_id, None, now) > 0


def _count_out(conn: Connection, deployment_id: str, rows: list[Any], now: float) -> None:
    """Take jobs out of their lines and their queue, and have it told to those who want to know."""
    numbers: Counter[LineKey] = Counter()
    for job_id, project_id, priority, fair_key, attempt, webhook_url in rows:
        numbers[LineKey(fair_key, priority)] += 1
        if webhook_url is not None:
            webhooks.enqueue(conn, project_id, job_id, attempt, webhook_url, now)
    for key, number in numbers.items():
        lines.leave(conn, deployment_id, key, number)
    if rows:
        queues.tally(conn, deployment_id, pending=-len(rows))


_GIVEN = "RETURNING id, project_id, priority, fair_key, attempt, webhook_url"
_OUT = f"UPDATE jobs SET state = '{target(JobVerb.CANCEL)}', done_at = :now, change = {NEXT_CHANGE}"
_CANCEL = Statement(
    f"{_OUT} WHERE id = :job_id AND deployment_id = :deployment_id AND state = '{source(JobVerb.CANCEL)}' {_GIVEN}"
)
_REQUEST_CANCEL = Statement(
    # The earliest wish counts.
    "UPDATE jobs SET cancel_requested = 1, cancel_due_at = CASE WHEN cancel_due_at < :due_at THEN cancel_due_at "
    f"ELSE :due_at END, change = {NEXT_CHANGE} "
    "WHERE id = :job_id AND deployment_id = :deployment_id AND state = 'running'"
)
# In the order of the index of what is pending, so that no index of all jobs there have ever been is taken.
_SOME = (
    f"SELECT sequence FROM jobs WHERE deployment_id = :deployment_id AND state = '{source(JobVerb.CANCEL)}' "
    "AND sequence + 0 <= :up_to ORDER BY priority, fair_key, sequence LIMIT :limit"
)
_CLEAR = Statement(
    f"{_OUT} WHERE sequence IN ({_SOME}) {_GIVEN}", postgres=f"{_OUT} WHERE sequence = ANY (ARRAY({_SOME})) {_GIVEN}"
)
_LAST = Statement("SELECT max(sequence) FROM jobs WHERE deployment_id = :deployment_id")
_OVERDUE = Statement(
    # As it is put, the deployment is compared and not searched by: few jobs are overdue, and many are in the queue.
    "SELECT id, info FROM jobs WHERE deployment_id || '' = :deployment_id AND deadline_at <= :now "
    f"AND deadline_at IS NOT NULL AND done_at IS NULL AND state = '{source(JobVerb.MISS)}' LIMIT :limit"
)
_MISS = Statement(
    f"UPDATE jobs SET state = '{target(JobVerb.MISS)}', done_at = :now, info = :info, change = {NEXT_CHANGE} "
    f"WHERE id = :job_id AND state = '{source(JobVerb.MISS)}' {_GIVEN}"
)
