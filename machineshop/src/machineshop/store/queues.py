"""A deployment's queue: its counts, its settings, and the number of its last change.

Everything that moves jobs counts here in the same transaction, and holds the queue's lock while it does
(`Database.write_in_queue`), so the counts are exact however many servers there are.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select

from machineshop.errors import NotFound, QueueFull
from machineshop.models import FairKey, QueueCounts, QueueSettings
from machineshop.store import lines
from machineshop.store.counts import MEAN, Count
from machineshop.store.statement import Statement
from machineshop.store.tables import fair_keys, jobs, queues
from machineshop.store.tables import lines as lines_table


class Place(NamedTuple):
    """Room for new jobs in a queue."""

    change: int
    mean_seconds: float | None


def create(conn: Connection, deployment_id: str) -> None:
    """Make the queue of a new deployment."""
    settings = QueueSettings()
    conn.execute(
        queues.insert().values(
            deployment_id=deployment_id,
            pending=0,
            running=0,
            changes=0,
            max_pending=settings.max_pending,
            keep_seconds=settings.keep_seconds,
            keep_count=settings.keep_count,
        )
    )


def admit(conn: Connection, deployment_id: str, model: str, number: int) -> int:
    """Count new pending jobs; returns the number of this change.

    Raises:
        NotFound: The deployment has just been deleted.
        QueueFull: There is no room for them.
    """
    row = _ADMIT.one(conn, {"deployment_id": deployment_id, "number": number})
    if row is None:
        state = _ROOM.one(conn, {"deployment_id": deployment_id})
        if state is None or state[2]:
            raise NotFound(what="deployment", id=model)
        raise QueueFull(model=model, pending=state[0], max_pending=state[1])
    change: int = row[0]
    return change


def admit_running(conn: Connection, deployment_id: str, model: str) -> int:
    """Count a new job that runs at once; returns the number of this change.

    Raises:
        NotFound: The deployment has just been deleted.
    """
    row = _ADMIT_RUNNING.one(conn, {"deployment_id": deployment_id})
    if row is None:
        raise NotFound(what="deployment", id=model)
    change: int = row[0]
    return change


def tally(conn: Connection, deployment_id: str, *, pending: int = 0, running: int = 0) -> float | None:
    """Count a change of jobs in or out; returns how long jobs run, as far as that is known."""
    row = _TALLY.one(conn, {"deployment_id": deployment_id, "pending": pending, "running": running})
    return None if row is None else row[0]


def tally_ends(conn: Connection, deployment_id: str, count: Count) -> None:
    """Count attempts that are over."""
    values = {"deployment_id": deployment_id, "ended": count.ended, "back": count.back, **count.mean_values()}
    _TALLY_ENDS.run(conn, values)


def mean_seconds(conn: Connection, deployment_id: str) -> float | None:
    """How long jobs run, as far as that is known."""
    row = _MEAN.one(conn, {"deployment_id": deployment_id})
    return None if row is None else row[0]


def counts(conn: Connection, deployment_id: str) -> QueueCounts:
    """How many jobs wait and run."""
    row = _COUNTS.one(conn, {"deployment_id": deployment_id})
    return QueueCounts() if row is None else QueueCounts(pending=row[0], running=row[1])


def last_change(conn: Connection, deployment_id: str) -> int:
    """The number of the last change of any of its jobs."""
    row = _CHANGES.one(conn, {"deployment_id": deployment_id})
    return 0 if row is None else row[0]


def is_over(conn: Connection, deployment_id: str) -> bool:
    """Whether no job of it will change again: its deployment is deleted, and none is pending or runs."""
    row = _OVER.one(conn, {"deployment_id": deployment_id})
    return row is None or bool(row[0])


def settings(conn: Connection, deployment_id: str) -> QueueSettings:
    """How the queue is kept."""
    columns = (queues.c.max_pending, queues.c.max_running_per_key, queues.c.keep_seconds, queues.c.keep_count)
    row = conn.execute(select(*columns).where(queues.c.deployment_id == deployment_id)).mappings().one()
    return QueueSettings(**row, keys=_keys(conn, deployment_id))


def change_settings(
    conn: Connection, deployment_id: str, changed: dict[str, Any], keys: dict[str, FairKey | None]
) -> QueueSettings:
    """Change what is named; a fair key that is None is forgotten. Returns the settings then."""
    if changed:
        conn.execute(queues.update().where(queues.c.deployment_id == deployment_id).values(**changed))
    for name, key in keys.items():
        mine = (fair_keys.c.deployment_id == deployment_id) & (fair_keys.c.fair_key == name)
        conn.execute(delete(fair_keys).where(mine))
        if key is not None:
            conn.execute(
                fair_keys.insert().values(
                    deployment_id=deployment_id, fair_key=name, weight=key.weight, max_running=key.max_running
                )
            )
    if keys or "max_running_per_key" in changed:
        lines.apply_settings(conn, deployment_id)
    return settings(conn, deployment_id)


def retention(conn: Connection) -> list[tuple[str, int, int]]:
    """For each queue with something to remove: the deployment, how many seconds ended jobs are kept, and how many.

    Deployments that are gone, of which there are ever more, cost nothing once their jobs have been removed.
    """
    mine = jobs.c.deployment_id == queues.c.deployment_id
    # Not whether there is one: for that Postgres reads through all jobs, where most of them are another queue's.
    first_end = select(func.min(jobs.c.done_at)).where(mine, jobs.c.done_at.is_not(None)).scalar_subquery()
    has_lines = select(lines_table.c.fair_key).where(lines_table.c.deployment_id == queues.c.deployment_id).exists()
    kept = queues.c.deployment_id, queues.c.keep_seconds, queues.c.keep_count
    query = select(*kept).where(first_end.is_not(None) | has_lines)
    return [(deployment_id, seconds, number) for deployment_id, seconds, number in conn.execute(query)]


def remove_idle_lines(conn: Connection, deployment_id: str) -> int:
    """Forget the lines that are empty and owe nothing; returns how many."""
    return lines.remove_idle(conn, deployment_id)


def _keys(conn: Connection, deployment_id: str) -> dict[str, FairKey]:
    rows = conn.execute(select(fair_keys).where(fair_keys.c.deployment_id == deployment_id)).mappings()
    return {row["fair_key"]: FairKey(weight=row["weight"], max_running=row["max_running"]) for row in rows}


_ADMIT = Statement(
    "UPDATE queues SET pending = pending + :number, changes = changes + 1 "
    "WHERE deployment_id = :deployment_id AND pending + :number <= max_pending "
    "AND EXISTS (SELECT 1 FROM deployments WHERE id = :deployment_id AND deleted_at IS NULL) RETURNING changes"
)
_ADMIT_RUNNING = Statement(
    "UPDATE queues SET running = running + 1, changes = changes + 1 WHERE deployment_id = :deployment_id "
    "AND EXISTS (SELECT 1 FROM deployments WHERE id = :deployment_id AND deleted_at IS NULL) RETURNING changes"
)
_ROOM = Statement(
    "SELECT q.pending, q.max_pending, d.deleted_at IS NOT NULL FROM queues q "
    "JOIN deployments d ON d.id = q.deployment_id WHERE q.deployment_id = :deployment_id"
)
_TALLY = Statement(
    "UPDATE queues SET pending = pending + :pending, running = running + :running, changes = changes + 1 "
    "WHERE deployment_id = :deployment_id RETURNING mean_seconds"
)
_TALLY_ENDS = Statement(
    "UPDATE queues SET pending = pending + :back, running = running - :ended, changes = changes + 1, "
    f"mean_seconds = {MEAN} WHERE deployment_id = :deployment_id"
)
_MEAN = Statement("SELECT mean_seconds FROM queues WHERE deployment_id = :deployment_id")
_COUNTS = Statement("SELECT pending, running FROM queues WHERE deployment_id = :deployment_id")
_OVER = Statement(
    "SELECT d.deleted_at IS NOT NULL AND q.pending + q.running = 0 FROM queues q "
    "JOIN deployments d ON d.id = q.deployment_id WHERE q.deployment_id = :deployment_id"
)
_CHANGES = Statement("SELECT changes FROM queues WHERE deployment_id = :deployment_id")
