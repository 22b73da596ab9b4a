"""Keys of people, projects and organizations: the statements of one transaction each, with their record."""

import re
from typing import Any, NamedTuple

from sqlalchemy import Connection

from machineshop.errors import AlreadyExists, InvalidRequest, NotFound
from machineshop.ids import is_id, new_id
from machineshop.lifetimes import check_lifetime
from machineshop.models import Actor, ApiKey, Organization, Project, Scope
from machineshop.services.audit import make_event
from machineshop.store import audit, identities

MAX_NAME_LENGTH = 63
# It is a namespace of the registry too.
SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class NewKey(NamedTuple):
    """What is stored of a new key."""

    name: str
    scope: Scope
    prefix: str
    hash: str
    created_at: float
    expires_at: float | None


def check_name(name: str) -> None:
    """Refuse a name that tells nothing, or too much.

    Raises:
        InvalidRequest: It is empty, too long, or would do something to a terminal.
    """
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidRequest(f"The name must have 1 to {MAX_NAME_LENGTH} printable characters.", param="name")


def check_slug(slug: str, param: str) -> None:
    """Refuse what cannot stand in a URL or name a repository.

    Raises:
        InvalidRequest: It cannot.
    """
    if not SLUG.fullmatch(slug):
        raise InvalidRequest(
            f"'{slug[:MAX_NAME_LENGTH]}' cannot be a project: use at most 63 lowercase letters, digits "
            "and hyphens, with a letter or digit at both ends.",
            param=param,
        )
    if is_id(slug):
        raise InvalidRequest(
            f"'{slug}' cannot be a project: it looks like the id of one. Call it otherwise.", param=param
        )


def ends_at(now: float, lifetime_seconds: int | None) -> float | None:
    """When a key ends.

    Raises:
        InvalidRequest: The lifetime is out of range.
    """
    return None if lifetime_seconds is None else now + check_lifetime(lifetime_seconds)


def create(conn: Connection, project_slug: str, new: NewKey, by: Actor, organization_id: str | None) -> ApiKey:
    """Add a key to a project, which must be of the organization, or is made if need be where none is given.

    Raises:
        NotFound: The organization has no such project.
    """
    project = identities.find_project(conn, project_slug)
    if organization_id is not None and (project is None or project.organization_id != organization_id):
        raise NotFound(what="project", id=project_slug, where="")
    project = project or insert_project(conn, project_slug, new.created_at)
    record = ApiKey(
        id=new_id(),
        project_id=project.id,
        name=new.name,
        prefix=new.prefix,
        scope=new.scope,
        created_at=new.created_at,
        expires_at=new.expires_at,
    )
    identities.insert_key(conn, record, new.hash)
    _record(conn, by, project, "key.create", record, new.created_at, after=key_values(record))
    return record


def revoke(conn: Connection, key_id: str, by: Actor, now: float, organization_id: str | None) -> ApiKey:
    """Revoke a key.

    Raises:
        NotFound: The organization has none such that is valid.
    """
    record = identities.find_key(conn, key_id, organization_id)
    if record is None or not identities.revoke_key(conn, record.id, now):
        raise NotFound(what="key", id=key_id, where="")
    project, _ = identities.get_project(conn, record.project_id)
    _record(conn, by, project, "key.revoke", record, now, before=key_values(record))
    return record


def create_project(
    conn: Connection, slug: str, name: str, organization_slug: str, by: Actor, now: float
) -> tuple[Project, Organization]:
    """Add a project to an organization, which is made if need be.

    Raises:
        AlreadyExists: There is one of this slug.
    """
    if identities.find_project(conn, slug) is not None:
        raise AlreadyExists(what="project", name=slug, where="")
    project = insert_project(conn, slug, now, name, organization_slug)
    organization = identities.get_project(conn, project.id)[1]
    values = {"name": name, "organization": organization.slug}
    audit.insert(conn, make_event(by, organization.id, project.id, "project.create", slug, now, after=values))
    return project, organization


def insert_project(
    conn: Connection, slug: str, now: float, name: str | None = None, organization_slug: str | None = None
) -> Project:
    """A project; by default with an organization of its own, so that registries' namespaces are apart as well."""
    organization_slug = organization_slug or slug
    organization = identities.find_organization(conn, organization_slug)
    if organization is None:
        organization = Organization(new_id(), organization_slug, organization_slug)
        identities.insert_organization(conn, organization, now)
    project = Project(new_id(), organization.id, name or slug, slug)
    identities.insert_project(conn, project, now)
    return project


def key_values(record: ApiKey) -> dict[str, Any]:
    """A key for the record."""
    return {"id": record.id, "scope": str(record.scope), "prefix": record.prefix, "expires_at": record.expires_at}


def _record(
    conn: Connection,
    by: Actor,
    project: Project,
    action: str,
    record: ApiKey,
    now: float,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    event = make_event(by, project.organization_id, project.id, action, record.name, now, before, after)
    audit.insert(conn, event)
