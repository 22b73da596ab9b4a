"""Repositories, and which blobs, manifests and tags are in them."""

import msgspec
from sqlalchemy import Connection, and_, delete, select

from machineshop.ids import new_id
from machineshop.store.tables import manifests, repositories, repository_blobs, tags


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


_REPOSITORY = (repositories.c.id, repositories.c.organization_id, repositories.c.name)
_MANIFEST = (manifests.c.digest, manifests.c.media_type, manifests.c.content, manifests.c.subject)


def find_repository(conn: Connection, organization_id: str, name: str) -> Repository | None:
    """The repository of this name."""
    query = select(*_REPOSITORY).where(repositories.c.organization_id == organization_id, repositories.c.name == name)
    row = conn.execute(query).first()
    return None if row is None else Repository(*row)


def ensure_repository(conn: Connection, organization_id: str, name: str, now: float) -> Repository:
    """The repository of this name, made if there is none."""
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


def add_blob(conn: Connection, repository_id: str, digest: str, size: int, now: float) -> None:
    """Let a repository serve a blob whose bytes are there."""
    if blob_size(conn, repository_id, digest) is None:
        conn.execute(
            repository_blobs.insert().values(repository_id=repository_id, digest=digest, size=size, created_at=now)
        )


def blob_size(conn: Connection, repository_id: str, digest: str) -> int | None:
    """The size in bytes of a repository's blob; None: it has no such blob."""
    query = select(repository_blobs.c.size).where(
        repository_blobs.c.repository_id == repository_id, repository_blobs.c.digest == digest
    )
    return conn.execute(query).scalar()


def blob_sizes(conn: Connection, repository_id: str, digests: set[str]) -> dict[str, int]:
    """The sizes in bytes of those among these blobs that a repository has."""
    found: dict[str, int] = {}
    for batch in _batches(digests):
        query = select(repository_blobs.c.digest, repository_blobs.c.size).where(
            repository_blobs.c.repository_id == repository_id, repository_blobs.c.digest.in_(batch)
        )
        found.update((row.digest, row.size) for row in conn.execute(query))
    return found


def mount_blob(
    conn: Connection, repository_id: str, digest: str, organization_id: str, source_name: str | None, now: float
) -> bool:
    """Let a repository serve what another one of the organization has; False: that one (or none) has it not.

    Without `source_name`, any of the organization's repositories will do.
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
    add_blob(conn, repository_id, digest, size, now)
    return True


def remove_blob(conn: Connection, repository_id: str, digest: str) -> bool:
    """Let a repository no longer serve a blob; False: it did not."""
    return (
        conn.execute(
            delete(repository_blobs).where(
                repository_blobs.c.repository_id == repository_id, repository_blobs.c.digest == digest
            )
        ).rowcount
        > 0
    )


def put_manifest(conn: Connection, repository_id: str, manifest: Manifest, tag: str | None, now: float) -> None:
    """Keep a manifest, and let a tag point to it."""
    known = and_(manifests.c.repository_id == repository_id, manifests.c.digest == manifest.digest)
    values = {"media_type": manifest.media_type, "content": manifest.content, "subject": manifest.subject}
    if conn.execute(manifests.update().where(known).values(**values)).rowcount == 0:
        conn.execute(
            manifests.insert().values(repository_id=repository_id, digest=manifest.digest, created_at=now, **values)
        )
    if tag is not None:
        _put_tag(conn, repository_id, tag, manifest.digest, now)


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
    for batch in _batches(digests):
        query = select(manifests.c.digest).where(
            manifests.c.repository_id == repository_id, manifests.c.digest.in_(batch)
        )
        found.update(conn.execute(query).scalars())
    return found


def remove_manifest(conn: Connection, repository_id: str, digest: str) -> bool:
    """Remove a manifest and the tags that point to it; False: there was none."""
    conn.execute(delete(tags).where(tags.c.repository_id == repository_id, tags.c.digest == digest))
    mine = and_(manifests.c.repository_id == repository_id, manifests.c.digest == digest)
    return conn.execute(delete(manifests).where(mine)).rowcount > 0


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


def _batches(digests: set[str], size: int = 500) -> list[list[str]]:
    """Databases take only so many values in one statement."""
    ordered = sorted(digests)
    return [ordered[at : at + size] for at in range(0, len(ordered), size)]
