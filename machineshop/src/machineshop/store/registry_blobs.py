"""Which repository may serve which blob, and where the bytes lie.

Bytes are kept once for each digest, whoever pushed them; the right to read them belongs to repositories.
"""

from collections.abc import Collection

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, select

from machineshop.store.registry import batches
from machineshop.store.tables import blob_keys, repositories, repository_blobs


class StoredBlob(msgspec.Struct, frozen=True):
    """A blob of a repository."""

    digest: str
    size: int
    key: str
    """Where the bytes lie among the blobs."""
    unneeded_since: float | None = None
    """When garbage collection found that nobody needs it."""


def find_blob(conn: Connection, repository_id: str, digest: str) -> StoredBlob | None:
    """A repository's blob."""
    query = (
        select(repository_blobs.c.size, blob_keys.c.key, repository_blobs.c.unneeded_since)
        .join(blob_keys, blob_keys.c.digest == repository_blobs.c.digest)
        .where(_is(repository_id, digest))
    )
    row = conn.execute(query).first()
    return None if row is None else StoredBlob(digest, *row)


def find_key(conn: Connection, digest: str) -> str | None:
    """Where the bytes of this digest lie, whoever pushed them."""
    key: str | None = conn.execute(select(blob_keys.c.key).where(blob_keys.c.digest == digest)).scalar()
    return key


def blob_sizes(conn: Connection, repository_id: str, digests: Collection[str]) -> dict[str, int]:
    """The sizes in bytes of those among these blobs that a repository has."""
    found: dict[str, int] = {}
    for batch in batches(digests):
        query = select(repository_blobs.c.digest, repository_blobs.c.size).where(
            repository_blobs.c.repository_id == repository_id, repository_blobs.c.digest.in_(batch)
        )
        found.update((row.digest, row.size) for row in conn.execute(query))
    return found


def add_blob(conn: Connection, repository_id: str, blob: StoredBlob, lost_key: str | None, now: float) -> str | None:
    """Let a repository serve a blob whose bytes were just stored; returns the key of bytes that are not needed, if any.

    Arguments:
        conn: Under `REGISTRY_LOCK`.
        repository_id: Which.
        blob: With the key under which its bytes were stored now.
        lost_key: Where bytes of this digest should lie, and do not.
        now: Seconds since the epoch.
    """
    known = find_key(conn, blob.digest)
    if known is None:
        conn.execute(blob_keys.insert().values(digest=blob.digest, key=blob.key))
    elif known == blob.key:  # two requests ended one push
        _link(conn, repository_id, blob.digest, blob.size, now)
        return None
    elif known == lost_key:
        conn.execute(blob_keys.update().where(blob_keys.c.digest == blob.digest).values(key=blob.key))
    _link(conn, repository_id, blob.digest, blob.size, now)
    return blob.key if known not in (None, lost_key) else known


def mount_blob(
    conn: Connection, repository_id: str, digest: str, organization_id: str, source_name: str | None, now: float
) -> bool:
    """Let a repository serve what another one of the organization has; False: that one (or none) has it not.

    Without `source_name`, any of the organization's repositories will do. The caller holds `REGISTRY_LOCK`.
    """
    query = (
        select(repository_blobs.c.size)
        .join(repositories)
        .where(repositories.c.organization_id == organization_id, repository_blobs.c.digest == digest)
        .limit(1)
    )
    if source_name is not None:
        query = query.where(repositories.c.name == source_name)
    size = conn.execute(query).scalar()
    if size is None:
        return False
    _link(conn, repository_id, digest, size, now)
    return True


def touch_blob(conn: Connection, repository_id: str, digest: str) -> bool:
    """Take back that nobody needs a blob: somebody has asked for it, and counts on it. False: it is gone."""
    return (
        conn.execute(repository_blobs.update().where(_is(repository_id, digest)).values(unneeded_since=None)).rowcount
        > 0
    )


def remove_blob(conn: Connection, repository_id: str, digest: str) -> bool:
    """Let a repository no longer serve a blob; False: it did not."""
    return conn.execute(delete(repository_blobs).where(_is(repository_id, digest))).rowcount > 0


def _link(conn: Connection, repository_id: str, digest: str, size: int, now: float) -> None:
    if not touch_blob(conn, repository_id, digest):
        conn.execute(
            repository_blobs.insert().values(repository_id=repository_id, digest=digest, size=size, created_at=now)
        )


def _is(repository_id: str, digest: str) -> ColumnElement[bool]:
    return and_(repository_blobs.c.repository_id == repository_id, repository_blobs.c.digest == digest)
