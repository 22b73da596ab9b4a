"""Repositories, and which manifests and tags are in them; their blobs are in `store.registry_blobs`.

Whoever adds something, leans on what is there, or takes it away, writes under `REGISTRY_LOCK`, as garbage collection
does: between two looks at one thing no other server takes it away.
"""

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import Connection, and_, delete, select

from machineshop.ids import new_id
from machineshop.store.tables import manifest_references, manifests, repositories, repository_blobs, tags

REGISTRY_LOCK = "registry"


class Repository(msgspec.Struct, frozen=True):
    """A repository of an organization; `name` is without the organization's namespace."""

    id: str
    organization_id: str
    name: str


class Manifest(msgspec.Struct, frozen=True):
    """A manifest as it was pushed, byte by byte."""

    digest: str
    media_type: str
    content: bytes
    subject: str | None = None
    unneeded_since: float | None = None
    """When garbage collection found that nobody needs it."""


_REPOSITORY = (repositories.c.id, repositories.c.organization_id, repositories.c.name)
_MANIFEST = (
    manifests.c.digest,
    manifests.c.media_type,
    manifests.c.content,
    manifests.c.subject,
    manifests.c.unneeded_since,
)


def find_repository(conn: Connection, organization_id: str, name: str) -> Repository | None:
    """The repository of this name."""
    query = select(*_REPOSITORY).where(repositories.c.organization_id == organization_id, repositories.c.name == name)
    row = conn.execute(query).first()
    return None if row is None else Repository(*row)


def ensure_repository(conn: Connection, organization_id: str, name: str, now: float) -> Repository:
    """The repository of this name, made if there is none; under `REGISTRY_LOCK`, or two servers make it at once."""
    known = find_repository(conn, organization_id, name)
    if known is not None:
        return known
    made = Repository(new_id(), organization_id, name)
    conn.execute(repositories.insert().values(id=made.id, organization_id=organization_id, name=name, created_at=now))
    return made


def list_repositories(conn: Connection, organization_id: str) -> list[Repository]:
    """The repositories that hold a manifest, by name."""
    has_manifest = select(manifests.c.digest).where(manifests.c.repository_id == repositories.c.id).exists()
    query = (
        select(*_REPOSITORY)
        .where(repositories.c.organization_id == organization_id, has_manifest)
        .order_by(repositories.c.name)
    )
    return [Repository(*row) for row in conn.execute(query)]


def put_manifest(
    conn: Connection, repository_id: str, manifest: Manifest, references: Collection[str], tag: str | None, now: float
) -> None:
    """Keep a manifest, and let a tag point to it.

    Arguments:
        conn: Under `REGISTRY_LOCK`.
        repository_id: Whose it is.
        manifest: What was pushed.
        references: The digests of what it cannot do without, all of it in the repository.
        tag: None: it is known by its digest alone.
        now: Seconds since the epoch.
    """
    known = and_(manifests.c.repository_id == repository_id, manifests.c.digest == manifest.digest)
    values = {"media_type": manifest.media_type, "content": manifest.content, "subject": manifest.subject}
    if conn.execute(manifests.update().where(known).values(**values, unneeded_since=None)).rowcount == 0:
        conn.execute(
            manifests.insert().values(repository_id=repository_id, digest=manifest.digest, created_at=now, **values)
        )
        rows = [
            {"repository_id": repository_id, "manifest": manifest.digest, "digest": digest} for digest in references
        ]
        if rows:
            conn.execute(manifest_references.insert(), rows)
    for batch in batches(references):
        for table in (manifests, repository_blobs):
            marked = and_(table.c.repository_id == repository_id, table.c.unneeded_since.is_not(None))
            conn.execute(table.update().where(marked, table.c.digest.in_(batch)).values(unneeded_since=None))
    if tag is not None:
        _put_tag(conn, repository_id, tag, manifest.digest, now)


def touch_manifest(conn: Connection, repository_id: str, digest: str) -> bool:
    """Take back that nobody needs a manifest: somebody has asked for it. False: it is gone."""
    mine = and_(manifests.c.repository_id == repository_id, manifests.c.digest == digest)
    return conn.execute(manifests.update().where(mine).values(unneeded_since=None)).rowcount > 0


def _put_tag(conn: Connection, repository_id: str, name: str, digest: str, now: float) -> None:
    known = and_(tags.c.repository_id == repository_id, tags.c.name == name)
    if conn.execute(tags.update().where(known).values(digest=digest, updated_at=now)).rowcount == 0:
        conn.execute(tags.insert().values(repository_id=repository_id, name=name, digest=digest, updated_at=now))


def find_manifest(conn: Connection, repository_id: str, reference: str) -> Manifest | None:
    """The manifest with this digest, or that this tag points to."""
    digest: object = reference
    if ":" not in reference:  # which no tag contains
        tag = and_(tags.c.repository_id == repository_id, tags.c.name == reference)
        digest = select(tags.c.digest).where(tag).scalar_subquery()
    query = select(*_MANIFEST).where(manifests.c.repository_id == repository_id, manifests.c.digest == digest)
    row = conn.execute(query).first()
    return None if row is None else Manifest(*row)


def known_manifests(conn: Connection, repository_id: str, digests: set[str]) -> set[str]:
    """Those among these manifests that a repository has."""
    found: set[str] = set()
    for batch in batches(digests):
        query = select(manifests.c.digest).where(
            manifests.c.repository_id == repository_id, manifests.c.digest.in_(batch)
        )
        found.update(conn.execute(query).scalars())
    return found


def remove_manifest(conn: Connection, repository_id: str, digest: str) -> bool:
    """Remove a manifest and the tags that point to it; False: there was none."""
    conn.execute(delete(tags).where(tags.c.repository_id == repository_id, tags.c.digest == digest))
    return remove_manifests(conn, repository_id, [digest]) > 0


def remove_manifests(conn: Connection, repository_id: str, digests: Sequence[str]) -> int:
    """Remove manifests (some hundreds at most) that no tag points to; returns how many there were."""
    refers = and_(manifest_references.c.repository_id == repository_id, manifest_references.c.manifest.in_(digests))
    conn.execute(delete(manifest_references).where(refers))
    mine = and_(manifests.c.repository_id == repository_id, manifests.c.digest.in_(digests))
    return conn.execute(delete(manifests).where(mine)).rowcount


def remove_tag(conn: Connection, repository_id: str, name: str) -> bool:
    """Remove a tag, and not what it points to; False: there was none."""
    mine = and_(tags.c.repository_id == repository_id, tags.c.name == name)
    return conn.execute(delete(tags).where(mine)).rowcount > 0


def list_tags(conn: Connection, repository_id: str, last: str | None, limit: int | None) -> list[str]:
    """Tags in the order of their bytes, those after `last`, at most `limit`."""
    query = select(tags.c.name).where(tags.c.repository_id == repository_id).order_by(tags.c.name)
    if last is not None:
        query = query.where(tags.c.name > last)
    if limit is not None:
        query = query.limit(limit)
    return list(conn.execute(query).scalars())


def list_referrers(conn: Connection, repository_id: str, subject: str) -> list[Manifest]:
    """The manifests that say something about another one, the oldest first."""
    query = (
        select(*_MANIFEST)
        .where(manifests.c.repository_id == repository_id, manifests.c.subject == subject)
        .order_by(manifests.c.created_at, manifests.c.digest)
    )
    return [Manifest(*row) for row in conn.execute(query)]


def batches(digests: Collection[str], size: int = 500) -> list[list[str]]:
    """Databases take only so many values in one statement."""
    ordered = sorted(digests)
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]
