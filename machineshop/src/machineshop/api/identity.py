"""Whose key this is; and, for admins, the projects and keys of their organization and the record of changes."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.described import identity as described
from machineshop.api.endpoint import Api, Call, iso
from machineshop.errors import InvalidRequest
from machineshop.http import ADMIN_SCOPES, ANY_SCOPE, address_of, json_response
from machineshop.lifetimes import MAX_SECONDS, MIN_SECONDS
from machineshop.models import Actor, ApiKey, AuditEvent, Organization, Project, Scope
from machineshop.services.audit import AuditLog
from machineshop.services.identity import IdentityService
from machineshop.services.keys import MAX_NAME_LENGTH, SLUG
from machineshop.services.projects import ProjectService

DEFAULT_EVENTS = 100
# An id of an event, or the name of an action: what is longer is none.
MAX_TEXT_LENGTH = 128
ONE = "/v1/projects/{id}"
PEOPLES_SCOPES = (Scope.ADMIN, Scope.DEVELOPER, Scope.VIEWER)

Text = Annotated[str, Meta(max_length=MAX_TEXT_LENGTH)]
# Their bounds are looked at where keys and projects are made; here they are said.
Named = Annotated[Text, Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_NAME_LENGTH})]
Lifetime = Annotated[int, Meta(extra_json_schema={"minimum": MIN_SECONDS, "maximum": MAX_SECONDS})]


class KeyRequest(msgspec.Struct, frozen=True):
    """A key to be made."""

    name: Named
    scope: Annotated[Scope, Meta(extra_json_schema={"enum": [str(scope) for scope in PEOPLES_SCOPES]})] = (
        Scope.DEVELOPER
    )
    project: Text | None = None
    expires_in_seconds: Lifetime | None = None


class ProjectRequest(msgspec.Struct, frozen=True):
    """A project to be made."""

    slug: Annotated[str, Meta(extra_json_schema={"pattern": f"^{SLUG.pattern}$"})]
    name: Named | None = None


class ProjectChanges(msgspec.Struct, frozen=True):
    """What to change of a project."""

    name: Named


def routes(api: Api, identity: IdentityService, projects: ProjectService, audit: AuditLog) -> list[Route]:
    """All routes of this module."""
    admins = _Admins(identity, projects, audit)
    route = partial(api.route, scopes=ADMIN_SCOPES)
    return [
        api.route("GET", "/v3/whoami", _whoami, scopes=ANY_SCOPE, operation=described.WHO_AM_I),
        route("GET", "/v1/projects", admins.list_projects, operation=described.PROJECTS),
        route("POST", "/v1/projects", admins.create_project, body=ProjectRequest, operation=described.NEW_PROJECT),
        route("PATCH", ONE, admins.rename_project, body=ProjectChanges, operation=described.RENAME_PROJECT),
        route("DELETE", ONE, admins.delete_project, operation=described.DELETE_PROJECT),
        route("GET", "/v1/api-keys", admins.list_keys, operation=described.KEYS),
        route("POST", "/v1/api-keys", admins.create_key, body=KeyRequest, operation=described.NEW_KEY),
        route("DELETE", "/v1/api-keys/{id}", admins.revoke_key, operation=described.REVOKE_KEY),
        route("GET", "/v1/audit", admins.list_events, operation=described.AUDIT),
    ]


async def _whoami(call: Call) -> Response:
    identity = call.identity
    return json_response(
        {
            "type": "project_api_key",
            "api_key": {
                "id": identity.key.id,
                "name": identity.key.name,
                "scope": identity.key.scope,
                "expires_at": iso(identity.key.expires_at),
            },
            "organization": {"id": identity.organization.id, "name": identity.organization.name},
            "project": {"id": identity.project.id, "name": identity.project.name, "slug": identity.project.slug},
        }
    )


class _Admins:
    """The handlers for admins: each looks no further than the caller's organization."""

    def __init__(self, identity: IdentityService, projects: ProjectService, audit: AuditLog) -> None:
        self._identity = identity
        self._projects = projects
        self._audit = audit

    async def list_projects(self, call: Call) -> Response:
        found = await self._identity.list_projects(call.identity.organization.id)
        return _listed([project_view(*one) for one in found])

    async def create_project(self, call: Call) -> Response:
        made = await self._identity.create_project(
            call.body.slug,
            call.body.name,
            organization_slug=call.identity.organization.slug,
            by=_actor(call),
        )
        return json_response(project_view(*made))

    async def rename_project(self, call: Call) -> Response:
        organization = call.identity.organization
        renamed = await self._projects.rename(
            call.path["id"], call.body.name, by=_actor(call), organization_id=organization.id
        )
        return json_response(project_view(renamed, organization))

    async def delete_project(self, call: Call) -> Response:
        gone = await self._projects.delete(
            call.path["id"],
            by=_actor(call),
            organization_id=call.identity.organization.id,
            own_id=call.identity.project.id,
        )
        return json_response({"object": "project", "id": gone.id, "slug": gone.slug, "deleted": True})

    async def list_keys(self, call: Call) -> Response:
        organization_id = call.identity.organization.id
        slugs = {project.id: project.slug for project, _ in await self._identity.list_projects(organization_id)}
        found = await self._identity.list_keys(organization_id)
        return _listed([key_view(record, slugs.get) for record in found])

    async def create_key(self, call: Call) -> Response:
        asked: KeyRequest = call.body
        if asked.scope not in PEOPLES_SCOPES:
            raise InvalidRequest("Keys of workers are made with their replicas, and not by hand.", param="scope")
        slug = asked.project or call.identity.project.slug
        record, key = await self._identity.create_key(
            slug,
            asked.name,
            asked.scope,
            lifetime_seconds=asked.expires_in_seconds,
            by=_actor(call),
            organization_id=call.identity.organization.id,
        )
        shown = {**key_view(record, lambda _id: slug), "key": key}
        return json_response(shown, headers={"Cache-Control": "no-store"})

    async def revoke_key(self, call: Call) -> Response:
        record = await self._identity.revoke_key(
            call.path["id"], by=_actor(call), organization_id=call.identity.organization.id
        )
        return json_response({"object": "api_key", "id": record.id, "name": record.name, "revoked": True})

    async def list_events(self, call: Call) -> Response:
        text = call.query.get("limit") or str(DEFAULT_EVENTS)
        if not text.isdecimal() or len(text) > 9:
            raise InvalidRequest(f"'limit' is '{text[:64]}', not a whole number.", param="limit")
        before, action = (_query_text(call, name) for name in ("before", "action"))
        found = await self._audit.list_events(call.identity.organization.id, int(text), before, action)
        return _listed([event_view(event) for event in found])


def project_view(project: Project, organization: Organization) -> dict[str, Any]:
    """A project as it is shown."""
    return {
        "object": "project",
        "id": project.id,
        "slug": project.slug,
        "name": project.name,
        "organization": {"id": organization.id, "name": organization.name, "slug": organization.slug},
    }


def key_view(record: ApiKey, slug_of: Callable[[str], str | None]) -> dict[str, Any]:
    """A key as it is shown: never the key itself."""
    return {
        "object": "api_key",
        "id": record.id,
        "prefix": record.prefix,
        "name": record.name,
        "scope": record.scope,
        "project": slug_of(record.project_id),
        "created_at": iso(record.created_at),
        "expires_at": iso(record.expires_at),
        "last_used_at": iso(record.last_used_at),
        "revoked_at": iso(record.revoked_at),
    }


def event_view(event: AuditEvent) -> dict[str, Any]:
    """An event of the record as it is shown."""
    return {
        "object": "audit_event",
        "id": event.id,
        "at": iso(event.at),
        "actor": {"name": event.actor.name, "key_id": event.actor.key_id},
        "address": event.actor.address,
        "project_id": event.project_id,
        "action": event.action,
        "subject": event.subject,
        "before": event.before,
        "after": event.after,
    }


def _actor(call: Call) -> Actor:
    return Actor(name=call.identity.key.name, key_id=call.identity.key.id, address=address_of(call.request.scope))


def _query_text(call: Call, name: str) -> str | None:
    text = call.query.get(name) or None
    if text is not None and (len(text) > MAX_TEXT_LENGTH or not text.isprintable()):
        raise InvalidRequest(f"'{name}' is too long, or not printable.", param=name)
    return text


def _listed(data: list[dict[str, Any]]) -> Response:
    return json_response({"object": "list", "data": data})
