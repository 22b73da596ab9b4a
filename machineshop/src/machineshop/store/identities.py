"""Organizations, projects and API keys: the rows behind an identity."""

from collections.abc import Mapping

from sqlalchemy import ColumnElement, Connection, Select, and_, select

from machineshop.models import ApiKey, Identity, Organization, Project, Scope
from machineshop.store.tables import api_keys, organizations, projects

_KEY_COLUMNS = [column for column in api_keys.c if column.name != "hash"]


def insert_organization(conn: Connection, organization: Organization, now: float) -> None:
    """Add an organization."""
    conn.execute(
        organizations.insert().values(
            id=organization.id, name=organization.name, slug=organization.slug, created_at=now
        )
    )


def insert_project(conn: Connection, project: Project, now: float) -> None:
    """Add a project."""
    conn.execute(
        projects.insert().values(
            id=project.id,
            organization_id=project.organization_id,
            name=project.name,
            slug=project.slug,
            created_at=now,
        )
    )


def find_project(conn: Connection, slug: str) -> Project | None:
    """The project with this slug."""
    row = conn.execute(select(projects).where(projects.c.slug == slug)).mappings().first()
    return None if row is None else Project(row["id"], row["organization_id"], row["name"], row["slug"])


def get_project(conn: Connection, project_id: str) -> tuple[Project, Organization]:
    """A project and its organization."""
    row = (
        conn.execute(
            select(projects, organizations.c.name.label("o_name"), organizations.c.slug.label("o_slug"))
            .join(organizations)
            .where(projects.c.id == project_id)
        )
        .mappings()
        .one()
    )
    return (
        Project(row["id"], row["organization_id"], row["name"], row["slug"]),
        Organization(row["organization_id"], row["o_name"], row["o_slug"]),
    )


def insert_key(conn: Connection, key: ApiKey, key_hash: str) -> None:
    """Add a key by its hash."""
    conn.execute(
        api_keys.insert().values(
            id=key.id,
            project_id=key.project_id,
            name=key.name,
            prefix=key.prefix,
            hash=key_hash,
            scope=key.scope,
            deployment_id=key.deployment_id,
            replica_id=key.replica_id,
            created_at=key.created_at,
            expires_at=key.expires_at,
        )
    )


def find_identity(conn: Connection, key_hash: str) -> Identity | None:
    """Whose key this is; None when it is unknown or revoked."""
    return _find_identity(conn, api_keys.c.hash == key_hash)


def find_owner(conn: Connection, key_id: str) -> Identity | None:
    """Whose the key with this id is; None when it is unknown or revoked."""
    return _find_identity(conn, api_keys.c.id == key_id)


def _find_identity(conn: Connection, condition: ColumnElement[bool]) -> Identity | None:
    query = select(*_KEY_COLUMNS).where(condition, api_keys.c.revoked_at.is_(None))
    row = conn.execute(query).mappings().first()
    if row is None:
        return None
    project, organization = get_project(conn, row["project_id"])
    return Identity(_key(dict(row)), project, organization)


def is_revoked(conn: Connection, key_hash: str) -> bool:
    """Whether this was a key and is none any longer."""
    query = select(api_keys.c.id).where(api_keys.c.hash == key_hash, api_keys.c.revoked_at.is_not(None))
    return conn.execute(query).first() is not None


def list_keys(conn: Connection, organization_id: str | None = None) -> list[ApiKey]:
    """All keys that people use, or those of an organization, the oldest first; replicas' own are left out."""
    query = select(*_KEY_COLUMNS).where(api_keys.c.replica_id.is_(None)).order_by(api_keys.c.created_at)
    if organization_id is not None:
        query = query.where(api_keys.c.project_id.in_(_projects_of(organization_id)))
    return [_key(dict(row)) for row in conn.execute(query).mappings()]


def list_projects(conn: Connection, organization_id: str | None = None) -> list[tuple[Project, Organization]]:
    """All projects, or those of an organization, by their slugs."""
    query = (
        select(projects, organizations.c.name.label("o_name"), organizations.c.slug.label("o_slug"))
        .join(organizations)
        .where(projects.c.deleted_at.is_(None))
        .order_by(projects.c.slug)
    )
    if organization_id is not None:
        query = query.where(projects.c.organization_id == organization_id)
    return [
        (
            Project(row["id"], row["organization_id"], row["name"], row["slug"]),
            Organization(row["organization_id"], row["o_name"], row["o_slug"]),
        )
        for row in conn.execute(query).mappings()
    ]


def find_organization(conn: Connection, slug: str) -> Organization | None:
    """The organization with this slug."""
    row = conn.execute(select(organizations).where(organizations.c.slug == slug)).mappings().first()
    return None if row is None else Organization(row["id"], row["name"], row["slug"])


def find_key(conn: Connection, key_id: str, organization_id: str | None = None) -> ApiKey | None:
    """A valid key that people use, by its id or its printed prefix; of an organization, where one is given."""
    query = select(*_KEY_COLUMNS).where(
        (api_keys.c.id == key_id) | (api_keys.c.prefix == key_id),
        api_keys.c.revoked_at.is_(None),
        api_keys.c.replica_id.is_(None),
    )
    if organization_id is not None:
        query = query.where(api_keys.c.project_id.in_(_projects_of(organization_id)))
    row = conn.execute(query.order_by(api_keys.c.created_at.desc())).mappings().first()
    return None if row is None else _key(dict(row))


def note_uses(conn: Connection, uses: Mapping[str, float]) -> None:
    """Write down when keys were last used."""
    for key_id, at in uses.items():
        is_older = api_keys.c.last_used_at.is_(None) | (api_keys.c.last_used_at < at)
        conn.execute(api_keys.update().where(api_keys.c.id == key_id, is_older).values(last_used_at=at))


def _projects_of(organization_id: str) -> "Select[tuple[str]]":
    return select(projects.c.id).where(projects.c.organization_id == organization_id)


def replicas_with_keys(conn: Connection) -> frozenset[str]:
    """The replicas that have a valid key."""
    query = select(api_keys.c.replica_id).where(api_keys.c.replica_id.is_not(None), api_keys.c.revoked_at.is_(None))
    return frozenset(conn.execute(query.distinct()).scalars())


def revoke_key(conn: Connection, key_id: str, now: float) -> bool:
    """Revoke by id, or by the printed prefix; False when no valid key is meant."""
    return _revoke(conn, (api_keys.c.id == key_id) | (api_keys.c.prefix == key_id), now) > 0


def revoke_named(conn: Connection, project_id: str, name: str, now: float) -> None:
    """Revoke every key of this name in a project."""
    _revoke(conn, and_(api_keys.c.project_id == project_id, api_keys.c.name == name), now)


def revoke_replica_keys(conn: Connection, replica_id: str, now: float) -> None:
    """Take back what a replica was given."""
    _revoke(conn, api_keys.c.replica_id == replica_id, now)


def _revoke(conn: Connection, condition: "object", now: float) -> int:
    statement = api_keys.update().where(condition, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)  # type: ignore[arg-type]
    return conn.execute(statement).rowcount


def _key(row: "dict[str, object]") -> ApiKey:
    return ApiKey(**{**row, "scope": Scope(str(row["scope"]))})  # type: ignore[arg-type]
