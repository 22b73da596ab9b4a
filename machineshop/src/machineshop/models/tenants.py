"""Who has what and who may do it: organizations, projects, keys, and the record of what they changed."""

from enum import StrEnum
from typing import Any

import msgspec

# The project that the server makes, of its own admin key.
DEFAULT_SLUG = "default"


class Scope(StrEnum):
    """What a key may do. People have the first three, each of which may all that the next one may."""

    ADMIN = "admin"
    """Everything in its project, and the projects and keys of its organization."""
    DEVELOPER = "developer"
    """Everything in its project but keys."""
    VIEWER = "viewer"
    """Look at what its project has, and change nothing."""
    WORKER = "worker"
    """Work the queue of one deployment, read the project's files, and upload its jobs' outputs."""


class Organization(msgspec.Struct, frozen=True):
    """The owner of projects and of a namespace in the registry."""

    id: str
    name: str
    slug: str


class Project(msgspec.Struct, frozen=True):
    """What everything else belongs to."""

    id: str
    organization_id: str
    name: str
    slug: str


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored: its hash, never the key."""

    id: str
    project_id: str
    name: str
    prefix: str
    """The first characters of the key, to recognise it by."""
    scope: Scope
    deployment_id: str | None = None
    replica_id: str | None = None
    created_at: float
    expires_at: float | None = None
    """When it ends by itself."""
    last_used_at: float | None = None
    """To the minute or so; of a replica's key it is not kept."""
    revoked_at: float | None = None


class Identity(msgspec.Struct, frozen=True):
    """Who makes a request."""

    key: ApiKey
    project: Project
    organization: Organization


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who changes something, and from where."""

    name: str
    """The name of the key, or of the command on the server's machine."""
    key_id: str | None = None
    address: str = ""
    """Where the request came from."""


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change that somebody made."""

    id: str
    at: float
    organization_id: str
    project_id: str
    actor: Actor
    action: str
    """The kind of thing and what was done to it, as `deployment.update`."""
    subject: str
    """The name or id of the thing."""
    before: dict[str, Any] | None = None
    """What was changed, as it was; without secrets."""
    after: dict[str, Any] | None = None
