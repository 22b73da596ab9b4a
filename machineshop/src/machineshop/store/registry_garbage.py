"""What garbage collection asks of the registry's rows, and does to them.

A manifest is needed while a tag points to it, an index refers to it, or what it says something about is there (a
signature goes with its image); a blob while a manifest refers to it; bytes while a repository serves them. What a
revision of a deployment runs is needed too: `pinned_manifests`.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, Exists, Table, and_, delete, exists, not_, or_, select

from machineshop.store.deployment_rows import decode_config
from machineshop.store.registry import batches, remove_manifests
from machineshop.store.tables import (
    blob_keys,
    deployments,
    manifest_references,
    manifests,
    projects,
    repositories,
    repository_blobs,
    revisions,
    tags,
)


class Unneeded(msgspec.Struct, frozen=True):
    """A look at a repository's manifests, or at its blobs."""

    now: frozenset[str]
    """The digests that nothing in the store needs at this moment."""
    marked: Mapping[str, float]
    """The digests that were found so before, with the time."""


def repository_ids(conn: Connection) -> list[str]:
    """All repositories, of all organizations."""
    return list(conn.execute(select(repositories.c.id)).scalars())


def pinned_manifests(conn: Connection) -> dict[str, set[str]]:
    """The digests that revisions of deployments run, by the ids of the repositories."""
    ids = {
        (row.organization_id, row.name): row.id
        for row in conn.execute(select(repositories.c.id, repositories.c.organization_id, repositories.c.name))
    }
    query = (
        select(projects.c.organization_id, revisions.c.config)
        .select_from(revisions.join(deployments, deployments.c.id == revisions.c.deployment_id).join(projects))
        .where(deployments.c.deleted_at.is_(None))
    )
    pinned: dict[str, set[str]] = {}
    for organization_id, config in conn.execute(query):
        path, _, digest = decode_config(config).image.partition("@")
        name = path.partition("/")[2].partition("/")[2]  # host/namespace/name
        if digest and (repository_id := ids.get((organization_id, name))) is not None:
            pinned.setdefault(repository_id, set()).add(digest)
    return pinned


def unneeded_manifests(conn: Connection, repository_id: str) -> Unneeded:
    """The manifests that neither a tag nor another manifest needs."""
    subjects = manifests.alias("subjects")
    tagged = exists().where(tags.c.repository_id == repository_id, tags.c.digest == manifests.c.digest)
    has_subject = exists().where(subjects.c.repository_id == repository_id, subjects.c.digest == manifests.c.subject)
    return _look(conn, manifests, repository_id, or_(tagged, _referred(repository_id, manifests), has_subject))


def unneeded_blobs(conn: Connection, repository_id: str) -> Unneeded:
    """The blobs that no manifest needs."""
    return _look(conn, repository_blobs, repository_id, _referred(repository_id, repository_blobs))


def mark_manifests(conn: Connection, repository_id: str, digests: Collection[str], since: float | None) -> None:
    """Note since when nobody needs these manifests; None: somebody does."""
    _mark(conn, manifests, repository_id, digests, since)


def mark_blobs(conn: Connection, repository_id: str, digests: Collection[str], since: float | None) -> None:
    """Note since when nobody needs these blobs; None: somebody does."""
    _mark(conn, repository_blobs, repository_id, digests, since)


def drop_manifests(conn: Connection, repository_id: str, digests: Collection[str]) -> int:
    """Remove manifests; returns how many."""
    return sum(remove_manifests(conn, repository_id, batch) for batch in batches(digests))


def drop_blobs(conn: Connection, repository_id: str, digests: Collection[str]) -> int:
    """Let a repository no longer serve these blobs; returns how many."""
    removed = 0
    for batch in batches(digests):
        mine = and_(repository_blobs.c.repository_id == repository_id, repository_blobs.c.digest.in_(batch))
        removed += conn.execute(delete(repository_blobs).where(mine)).rowcount
    return removed


def forget_unserved_bytes(conn: Connection, limit: int) -> list[str]:
    """Forget where bytes lie that no repository serves, `limit` at most; returns their keys."""
    served = exists().where(repository_blobs.c.digest == blob_keys.c.digest)
    unserved = list(conn.execute(select(blob_keys.c.digest).where(not_(served)).limit(limit)).scalars())
    removed = delete(blob_keys).where(blob_keys.c.digest.in_(unserved)).returning(blob_keys.c.key)
    return list(conn.execute(removed).scalars())


def known_keys(conn: Connection, keys: Sequence[str]) -> set[str]:
    """Those among these keys (some hundreds at most) under which bytes lie."""
    return set(conn.execute(select(blob_keys.c.key).where(blob_keys.c.key.in_(keys))).scalars())


def _referred(repository_id: str, table: Table) -> Exists:
    return exists().where(
        manifest_references.c.repository_id == repository_id, manifest_references.c.digest == table.c.digest
    )


def _look(conn: Connection, table: Table, repository_id: str, needed: ColumnElement[bool]) -> Unneeded:
    mine = table.c.repository_id == repository_id
    marked = select(table.c.digest, table.c.unneeded_since).where(mine, table.c.unneeded_since.is_not(None))
    return Unneeded(
        frozenset(conn.execute(select(table.c.digest).where(mine, not_(needed))).scalars()),
        {row.digest: row.unneeded_since for row in conn.execute(marked)},
    )


def _mark(conn: Connection, table: Table, repository_id: str, digests: Collection[str], since: float | None) -> None:
    for batch in batches(digests):
        mine = and_(table.c.repository_id == repository_id, table.c.digest.in_(batch))
        conn.execute(table.update().where(mine).values(unneeded_since=since))
