"""Projects that go: what makes one invisible at once, and what takes away in pieces that which it had.

The row of a deleted project stays, since the record of changes names it; its slug is free for others.
"""

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, exists, select

from machineshop.errors import NotFound
from machineshop.models import Project
from machineshop.store.announcements import announce
from machineshop.store.naming import named
from machineshop.store.tables import (
    api_keys,
    deployments,
    files,
    jobs,
    manifest_references,
    manifests,
    organizations,
    projects,
    repositories,
    repository_blobs,
    secrets,
    tags,
    volume_versions,
    volumes,
    webhook_secrets,
    webhook_signing,
)
from machineshop.store.volumes import VOLUMES_GONE

# No slug has it, so a gone one is nobody's.
GONE = "~"
# What goes with the project, since nobody must be able to make use of it afterwards.
_AT_ONCE = (secrets, webhook_signing, webhook_secrets)
# In this order, as the later ones are named by those before.
_OF_REPOSITORIES = (tags, manifest_references, manifests, repository_blobs)


def find(conn: Connection, name_or_id: str, organization_id: str | None = None) -> Project | None:
    """A project by its slug, else by its id; of an organization, if one is given. Nobody else changes it meanwhile."""
    query = named(select(projects), projects.c.slug, projects.c.id, name_or_id).where(projects.c.deleted_at.is_(None))
    if organization_id is not None:
        query = query.where(projects.c.organization_id == organization_id)
    row = conn.execute(query.with_for_update()).mappings().first()
    return None if row is None else Project(row["id"], row["organization_id"], row["name"], row["slug"])


def hold(conn: Connection, project_id: str) -> None:
    """Keep a project from being deleted until the end of the transaction.

    Raises:
        NotFound: It is gone.
    """
    _require(conn, project_id, _lives(project_id).with_for_update(read=True))


def check(conn: Connection, project_id: str) -> None:
    """Look whether a project is there.

    Raises:
        NotFound: It is gone.
    """
    _require(conn, project_id, _lives(project_id))


def _lives(project_id: str) -> Select[tuple[str]]:
    return select(projects.c.id).where(projects.c.id == project_id, projects.c.deleted_at.is_(None))


def _require(conn: Connection, project_id: str, lives: Select[tuple[str]]) -> None:
    if conn.execute(lives).first() is None:
        raise NotFound(what="project", id=project_id, where="")


def names_of_live_deployments(conn: Connection, project_id: str) -> list[str]:
    """What has to be deleted first."""
    live = select(deployments.c.name).where(deployments.c.project_id == project_id, deployments.c.deleted_at.is_(None))
    return list(conn.execute(live.order_by(deployments.c.name)).scalars())


def rename(conn: Connection, project_id: str, name: str) -> None:
    """Call it otherwise."""
    conn.execute(projects.update().where(projects.c.id == project_id).values(name=name))


def remove(conn: Connection, project: Project, now: float) -> None:
    """Make a project invisible: its keys end, and so does what only keys of its could use."""
    conn.execute(
        projects.update().where(projects.c.id == project.id).values(deleted_at=now, slug=f"{GONE}{project.id}")
    )
    valid = api_keys.c.project_id == project.id, api_keys.c.revoked_at.is_(None)
    conn.execute(api_keys.update().where(*valid).values(revoked_at=now))
    for table in _AT_ONCE:
        conn.execute(delete(table).where(table.c.project_id == project.id))


def purge(conn: Connection, limit: int) -> int:
    """Take away some of what deleted projects still have; returns how many rows, 0 when nothing is left.

    Bytes without a row are cleared away by those who look after bytes. Jobs that still run are left to end.
    """
    gone = select(projects.c.id).where(projects.c.deleted_at.is_not(None))
    count = _delete_some(conn, jobs, jobs.c.project_id.in_(gone) & jobs.c.done_at.is_not(None), limit)
    count += _delete_some(conn, files, files.c.project_id.in_(gone), limit)
    of_gone = select(volumes.c.id).where(volumes.c.project_id.in_(gone))
    if versions := conn.execute(delete(volume_versions).where(volume_versions.c.volume_id.in_(of_gone))).rowcount:
        announce(conn, VOLUMES_GONE)
    count += versions
    count += conn.execute(delete(volumes).where(volumes.c.project_id.in_(gone))).rowcount
    count += conn.execute(delete(secrets).where(secrets.c.project_id.in_(gone))).rowcount
    return count + _purge_organizations(conn)


def _purge_organizations(conn: Connection) -> int:
    """Take away the repositories of organizations whose last project is gone; their slugs are free for others."""
    had = exists(select(projects.c.id).where(projects.c.organization_id == organizations.c.id))
    has = exists(
        select(projects.c.id).where(projects.c.organization_id == organizations.c.id, projects.c.deleted_at.is_(None))
    )
    left = select(organizations.c.id).where(had, ~has)
    orphaned = select(repositories.c.id).where(repositories.c.organization_id.in_(left))
    count = 0
    for table in _OF_REPOSITORIES:
        count += conn.execute(delete(table).where(table.c.repository_id.in_(orphaned))).rowcount
    count += conn.execute(delete(repositories).where(repositories.c.organization_id.in_(left))).rowcount
    named = organizations.update().where(organizations.c.id.in_(left), ~organizations.c.slug.startswith(GONE))
    return count + conn.execute(named.values(slug=GONE + organizations.c.id)).rowcount


def _delete_some(conn: Connection, table: Table, condition: ColumnElement[bool], limit: int) -> int:
    key = list(table.primary_key.columns)
    some = conn.execute(select(*key).where(condition).limit(limit)).all()
    count = 0
    for row in some:
        is_it = [column == value for column, value in zip(key, row, strict=True)]
        count += conn.execute(delete(table).where(*is_it)).rowcount
    return count
