"""Files that users have uploaded, and that are older than they may get.

Outputs of jobs are none of them, as they go with their jobs, nor are the files of volumes.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, func, not_, select

from machineshop.store.statement import Statement
from machineshop.store.tables import files


def aged(conn: Connection, prefix: str, others: Sequence[str], before: float, limit: int) -> list[tuple[str, str]]:
    """Projects and names of files that were uploaded before then, `limit` at most.

    All files are looked at, so it is for readers.

    Arguments:
        conn: The connection.
        prefix: What their names begin with.
        others: What they do not begin with.
        before: Seconds since the epoch.
        limit: How many.
    """
    is_uploaded = and_(files.c.job_id.is_(None), files.c.volume_id.is_(None), files.c.created_at < before)
    named = and_(_begins_with(prefix), *(not_(_begins_with(other)) for other in others))
    query = select(files.c.project_id, files.c.name).where(is_uploaded, named).limit(limit)
    return [(project_id, name) for project_id, name in conn.execute(query)]


def remove_aged(conn: Connection, names: Sequence[tuple[str, str]], before: float) -> list[str]:
    """Remove those of these files that are still what `aged` says; returns the keys of their blobs."""
    keys = []
    for project_id, name in sorted(names):  # in one order, so that two servers never wait for each other
        row = _REMOVE.one(conn, {"project_id": project_id, "name": name, "before": before})
        if row is not None:
            keys.append(row[0])
    return keys


def _begins_with(prefix: str) -> ColumnElement[bool]:
    return func.substr(files.c.name, 1, len(prefix)) == prefix


_REMOVE = Statement(
    "DELETE FROM files WHERE project_id = :project_id AND name = :name AND created_at < :before "
    "AND job_id IS NULL AND volume_id IS NULL RETURNING blob_key"
)
