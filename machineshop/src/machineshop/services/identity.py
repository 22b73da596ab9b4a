"""API keys: making them, telling whose they are, taking them back."""

import hashlib
import re
import secrets
import time
from collections.abc import Callable

from sqlalchemy import Connection

from machineshop.errors import InvalidRequest, NotAuthenticated, NotFound
from machineshop.ids import new_id
from machineshop.models import ApiKey, Identity, Organization, Project, Scope
from machineshop.store import identities
from machineshop.store.database import Database

KEY_PREFIX = "msk_"
# A key that somebody chooses must not be guessable.
MIN_KEY_LENGTH = 20
MAX_KEY_LENGTH = 512
PRINTED_LENGTH = 10
# How long a revoked key may go on working in a server that did not revoke it itself.
CACHE_SECONDS = 2.0
CACHE_LIMIT = 10_000

MAX_NAME_LENGTH = 63
# It is a namespace of the registry too.
SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

ADMIN_KEY_NAME = "admin"
# Servers that start at once make the default project once.
_LOCK = "identities"
DEFAULT_SLUG = "default"


class IdentityService:
    """Keys are looked up by their SHA-256: they are random, so a slow hash would add nothing but time."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._cache: dict[str, tuple[float, Identity]] = {}

    async def authenticate(self, key: str | None) -> Identity:
        """Whose key this is.

        Raises:
            NotAuthenticated: It is missing, unknown or revoked.
        """
        if not key or len(key) > MAX_KEY_LENGTH:
            raise NotAuthenticated
        identity = await self._cached(identities.find_identity, hash_key(key))
        if identity is None:
            raise NotAuthenticated("The one that was sent is unknown or revoked; 'jig auth login' keeps another.")
        return identity

    async def owner_of(self, key_id: str) -> Identity:
        """Whose the key with this id is: for what was made out to a key, and is worth nothing without it.

        Raises:
            NotAuthenticated: It is unknown or revoked.
        """
        identity = await self._cached(identities.find_owner, key_id)
        if identity is None:
            raise NotAuthenticated("The key that this was made for was revoked.")
        return identity

    async def _cached(self, find: Callable[[Connection, str], Identity | None], known_by: str) -> Identity | None:
        """Ask the store at most every `CACHE_SECONDS`."""
        now = self._clock()
        cached = self._cache.get(known_by)
        if cached is not None and cached[0] > now:
            return cached[1]
        identity = await self._database.read(find, known_by)
        if identity is None:
            self._cache.pop(known_by, None)
            return None
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        self._cache[known_by] = (now + CACHE_SECONDS, identity)
        return identity

    async def ensure_admin(self, key: str, *, alone: bool = True) -> Identity:
        """Make `key` an admin key of the default project, which is made with its organization at the first start.

        Args:
            key: It is there already, or is made now.
            alone: It takes the place of the admin key before it. Servers that share a database and have each made a
                key of their own leave one another's be.

        Raises:
            InvalidRequest: The key is too short to be safe, or was revoked.
        """
        check_strength(key)
        await self._database.write_alone(
            _LOCK, _ensure_admin, hash_key(key), key[:PRINTED_LENGTH], self._clock(), alone
        )
        return await self.authenticate(key)

    async def create_key(self, project_slug: str, name: str, scope: Scope) -> tuple[ApiKey, str]:
        """A new key of a project, which is made if need be; the key itself is returned here and never again.

        Raises:
            InvalidRequest: The name is empty or too long, or the project cannot be a slug.
        """
        if not 1 <= len(name) <= MAX_NAME_LENGTH:
            raise InvalidRequest(f"The key's name must have 1 to {MAX_NAME_LENGTH} characters.", param="name")
        if not SLUG.fullmatch(project_slug):
            raise InvalidRequest(
                f"'{project_slug[:MAX_NAME_LENGTH]}' cannot be a project: use at most 63 lowercase letters, digits "
                "and hyphens, with a letter or digit at both ends.",
                param="project",
            )
        return await self._database.write_alone(_LOCK, _create_key, project_slug, name, scope, self._clock())

    async def create_worker_key(self, project_id: str, deployment_id: str, replica_id: str) -> str:
        """The key of one replica, which can do no more than work its deployment's queue."""
        key = new_key()
        record = _record(
            key, project_id, f"replica {replica_id}", Scope.WORKER, self._clock(), deployment_id, replica_id
        )
        await self._database.write(identities.insert_key, record, hash_key(key))
        return key

    async def revoke_replica_keys(self, replica_id: str) -> None:
        """Take back a replica's key."""
        await self._database.write(identities.revoke_replica_keys, replica_id, self._clock())
        self._cache = {
            key_hash: entry for key_hash, entry in self._cache.items() if entry[1].key.replica_id != replica_id
        }

    async def replicas_with_keys(self) -> frozenset[str]:
        """The replicas, of whichever server, that have a valid key."""
        return await self._database.read(identities.replicas_with_keys)

    async def list_keys(self) -> list[ApiKey]:
        """All keys that people use."""
        return await self._database.read(identities.list_keys)

    async def revoke_key(self, key_id: str) -> None:
        """Revoke a key by its id or its printed prefix.

        Raises:
            NotFound: No valid key is meant by it.
        """
        if not await self._database.write(identities.revoke_key, key_id, self._clock()):
            raise NotFound(what="key", id=key_id)
        self._cache.clear()


def new_key() -> str:
    """A random key of 256 bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """What the store keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def check_strength(key: str) -> None:
    """Refuse a key that could be guessed.

    Raises:
        InvalidRequest: It is too short, too long, or not printable ASCII.
    """
    if not MIN_KEY_LENGTH <= len(key) <= MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidRequest(
            f"An admin key must have {MIN_KEY_LENGTH} to {MAX_KEY_LENGTH} printable characters without spaces; "
            "leave MACHINESHOP_ADMIN_KEY unset to have one made."
        )


def _ensure_admin(conn: Connection, key_hash: str, prefix: str, now: float, alone: bool) -> None:
    project = identities.find_project(conn, DEFAULT_SLUG) or _create_project(conn, DEFAULT_SLUG, now)
    known = identities.find_identity(conn, key_hash)
    if known is not None and known.key.name == ADMIN_KEY_NAME:
        return
    if identities.is_revoked(conn, key_hash):
        raise InvalidRequest(
            "The admin key that this server has was revoked, or replaced by another: set a new one in "
            "MACHINESHOP_ADMIN_KEY, or remove the file admin-key from the data directory to have one made."
        )
    if alone:
        identities.revoke_named(conn, project.id, ADMIN_KEY_NAME, now)
    record = ApiKey(
        id=new_id(), project_id=project.id, name=ADMIN_KEY_NAME, prefix=prefix, scope=Scope.ADMIN, created_at=now
    )
    identities.insert_key(conn, record, key_hash)


def _create_project(conn: Connection, slug: str, now: float) -> Project:
    """A project with an organization of its own, so that registries' namespaces are apart as well."""
    organization = Organization(new_id(), slug, slug)
    identities.insert_organization(conn, organization, now)
    project = Project(new_id(), organization.id, slug, slug)
    identities.insert_project(conn, project, now)
    return project


def _create_key(conn: Connection, project_slug: str, name: str, scope: Scope, now: float) -> tuple[ApiKey, str]:
    project = identities.find_project(conn, project_slug) or _create_project(conn, project_slug, now)
    key = new_key()
    record = _record(key, project.id, name, scope, now)
    identities.insert_key(conn, record, hash_key(key))
    return record, key


def _record(
    key: str,
    project_id: str,
    name: str,
    scope: Scope,
    now: float,
    deployment_id: str | None = None,
    replica_id: str | None = None,
) -> ApiKey:
    return ApiKey(
        id=new_id(),
        project_id=project_id,
        name=name,
        prefix=key[:PRINTED_LENGTH],
        scope=scope,
        deployment_id=deployment_id,
        replica_id=replica_id,
        created_at=now,
    )
