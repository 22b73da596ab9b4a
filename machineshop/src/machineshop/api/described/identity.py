"""The server, keys, projects and the record of changes."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from machineshop.api.described.shapes import Id, Listed, Time
from machineshop.api.operation import Link, Operation, Query
from machineshop.models import Scope


class ServerHealth(msgspec.Struct):
    """The server answers."""

    status: Literal["healthy"]
    version: str


class KeyNamed(msgspec.Struct):
    """The key that asks."""

    id: Id
    name: str
    scope: Scope
    expires_at: Time | None


class OrganizationNamed(msgspec.Struct):
    """Whose the project is."""

    id: Id
    name: str


class ProjectNamed(msgspec.Struct):
    """The key's project."""

    id: Id
    name: str
    slug: str


class WhoAmI(msgspec.Struct):
    """Whose key this is."""

    type: Literal["project_api_key"]
    api_key: KeyNamed
    organization: OrganizationNamed
    project: ProjectNamed


class OrganizationShown(OrganizationNamed):
    """An organization."""

    slug: str


class ProjectShown(msgspec.Struct):
    """A project."""

    object: Literal["project"]
    id: Id
    slug: str
    name: str
    organization: OrganizationShown


class ProjectDeleted(msgspec.Struct):
    """A project that is gone."""

    object: Literal["project"]
    id: Id
    slug: str
    deleted: Literal[True]


class ApiKeyShown(msgspec.Struct, kw_only=True):
    """A key; never the key itself."""

    object: Literal["api_key"]
    id: Id
    prefix: str
    name: str
    scope: Scope
    project: str | None
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    revoked_at: Time | None


class ApiKeyMade(ApiKeyShown, kw_only=True):
    """A new key, in this answer and in no other."""

    key: str


class ApiKeyRevoked(msgspec.Struct):
    """A key that has ended."""

    object: Literal["api_key"]
    id: Id
    name: str
    revoked: Literal[True]


class ActorShown(msgspec.Struct):
    """Who did it."""

    name: str
    key_id: str | None


class AuditEventShown(msgspec.Struct):
    """One change."""

    object: Literal["audit_event"]
    id: Id
    at: Time
    actor: ActorShown
    address: str
    project_id: Id
    action: str
    subject: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


HEALTH = Operation(about="Whether the server answers.", answer=ServerHealth)
AUTHORITY = Operation(
    about="The certificate of the authority that signed the server's.",
    media=("application/x-pem-file",),
    errors={404: None},
)
WHO_AM_I = Operation(about="Whose key this is.", answer=WhoAmI)
PROJECTS = Operation(about="The organization's projects.", answer=Listed[ProjectShown])
_OF_IT = {"id": "$response.body#/id"}
NEW_PROJECT = Operation(
    about="Make a project of the organization.",
    answer=ProjectShown,
    errors={409: None},
    links=[Link(f"{method} /v1/projects/{{id}}", _OF_IT) for method in ("PATCH", "DELETE")],
)
RENAME_PROJECT = Operation(about="Give a project another name; its slug stays.", answer=ProjectShown)
DELETE_PROJECT = Operation(
    about="Delete a project with all that it has; refused while it has deployments.",
    answer=ProjectDeleted,
    errors={409: None},
)
KEYS = Operation(about="The organization's keys.", answer=Listed[ApiKeyShown])
NEW_KEY = Operation(
    about="Make a key.",
    answer=ApiKeyMade,
    errors={404: None},
    links=[Link("DELETE /v1/api-keys/{id}", {"id": "$response.body#/id"})],
)
REVOKE_KEY = Operation(about="End a key.", answer=ApiKeyRevoked)
_Short = Annotated[str, Meta(max_length=128)]
AUDIT = Operation(
    about="Who changed what, the newest first.",
    answer=Listed[AuditEventShown],
    query=(
        Query("limit", "How many at most.", Annotated[int, Meta(ge=1, le=1000)]),
        Query("before", "The id of an event: those before it.", _Short),
        Query("action", "As `deployment.update`, or `deployment` for all of its kind.", _Short),
    ),
)
