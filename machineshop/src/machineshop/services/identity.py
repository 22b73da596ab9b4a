"""API keys: telling whose they are, and making and taking back those of the server and of replicas.

Keys of people are `keys.py`'s.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable

from sqlalchemy import Connection

from machineshop.errors import InvalidRequest, NotAuthenticated, Unavailable
from machineshop.ids import new_id
from machineshop.models import DEFAULT_SLUG, Actor, ApiKey, Identity, Organization, Project, Scope
from machineshop.services import keys
from machineshop.services.audit import AT_THE_SERVER
from machineshop.services.failures import FailedKeys
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

ADMIN_KEY_NAME = "admin"
# Servers that start at once make the default project once, and nobody makes a project where the last one goes.
LOCK = "identities"


class IdentityService:
    """Keys are looked up by their SHA-256: they are random, so a slow hash would add nothing but time."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        # By the id of a key, or by a hash of it that is quicker than the store's and worth nothing to anybody else.
        self._cache: dict[str | bytes, tuple[float, Identity]] = {}
        self._asked: dict[str, asyncio.Task[Identity | None]] = {}
        self._salt = secrets.token_bytes(16)
        self._failed = FailedKeys()
        self._uses: dict[str, float] = {}

    async def authenticate(self, key: str | None, address: str | None = None) -> Identity:
        """Whose key this is.

        Args:
            key: As it was sent.
            address: Where from; None where nobody is to be slowed down.

        Raises:
            NotAuthenticated: It is missing, unknown, revoked or expired.
            TooManyFailures: Too many keys that nobody has came from there.
        """
        if not key or len(key) > MAX_KEY_LENGTH:
            raise NotAuthenticated
        now = self._clock()
        known_by = hashlib.blake2b(key.encode(), digest_size=16, key=self._salt).digest()
        identity = self._cached(known_by, now)
        if identity is None:
            key_hash = hash_key(key)
            if address is not None:
                self._failed.check(address, key_hash, now)
            identity = await self._find(identities.find_identity, key_hash, known_by)
            if identity is None or _has_expired(identity, now):
                if address is not None:
                    self._failed.failed(address, key_hash, now)
            else:
                self._failed.proved(key_hash)
        if identity is None:
            raise NotAuthenticated("The one that was sent is unknown or revoked; 'jig auth login' keeps another.")
        if _has_expired(identity, now):
            raise NotAuthenticated("The one that was sent has expired; 'jig auth login' keeps another.")
        if identity.key.replica_id is None:
            self._uses[identity.key.id] = now
        return identity

    async def note_uses(self, _now: float) -> None:
        """Write down when people's keys were last used: once in a while, not with each request."""
        uses, self._uses = self._uses, {}
        if uses:
            await self._database.write(identities.note_uses, uses)

    async def owner_of(self, key_id: str) -> Identity:
        """Whose the key with this id is: for what was made out to a key, and is worth nothing without it.

        Thousands of streams of one key may ask at one moment: the store is asked once for all of them.

        Raises:
            NotAuthenticated: It is unknown or revoked.
        """
        now = self._clock()
        identity = self._cached(key_id, now) or await self._ask_of(key_id)
        if identity is None or _has_expired(identity, now):
            raise NotAuthenticated("The key that this was made for was revoked, or has expired.")
        return identity

    async def still_holds(self, identity: Identity) -> bool:
        """Whether a key that was good is so still: for answers that go on for hours. A store that is away ends none."""
        try:
            await self.owner_of(identity.key.id)
        except NotAuthenticated:
            return False
        except Unavailable:
            pass
        return True

    async def _ask_of(self, key_id: str) -> Identity | None:
        asked = self._asked.get(key_id)
        if asked is None:
            asked = asyncio.create_task(self._find(identities.find_owner, key_id, key_id))
            self._asked[key_id] = asked
            asked.add_done_callback(lambda task: self._answered(key_id, task))
        return await asyncio.shield(asked)

    def _answered(self, key_id: str, task: "asyncio.Task[Identity | None]") -> None:
        del self._asked[key_id]
        if not task.cancelled():
            task.exception()  # whoever asked may be gone

    def _cached(self, known_by: str | bytes, now: float) -> Identity | None:
        cached = self._cache.get(known_by)
        return cached[1] if cached is not None and cached[0] > now else None

    async def _find(
        self, find: Callable[[Connection, str], Identity | None], wanted: str, known_by: str | bytes
    ) -> Identity | None:
        """Ask the store, and no more for `CACHE_SECONDS`."""
        identity = await self._database.read(find, wanted)
        if identity is None:
            self._cache.pop(known_by, None)
            return None
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        self._cache[known_by] = (self._clock() + CACHE_SECONDS, identity)
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
        await self._database.write_alone(LOCK, _ensure_admin, hash_key(key), key[:PRINTED_LENGTH], self._clock(), alone)
        return await self.authenticate(key)

    async def create_key(
        self,
        project_slug: str,
        name: str,
        scope: Scope,
        *,
        lifetime_seconds: int | None = None,
        by: Actor = AT_THE_SERVER,
        organization_id: str | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key of a project; the key itself is returned here and never again.

        Args:
            project_slug: Whose; made if need be, unless an organization is given.
            name: What it is for.
            scope: What it may do.
            lifetime_seconds: When it ends by itself; None: never.
            by: Who makes it.
            organization_id: The project must be of this one.

        Raises:
            InvalidRequest: The name is empty or too long, or the project cannot be a slug.
            NotFound: The organization has no such project.
        """
        keys.check_name(name)
        keys.check_slug(project_slug, "project")
        key, now = new_key(), self._clock()
        made = keys.NewKey(name, scope, key[:PRINTED_LENGTH], hash_key(key), now, keys.ends_at(now, lifetime_seconds))
        record = await self._database.write_alone(LOCK, keys.create, project_slug, made, by, organization_id)
        self._failed.proved(made.hash)  # whoever gets it is let in, whatever else comes from there
        return record, key

    async def create_worker_key(self, project_id: str, deployment_id: str, replica_id: str) -> str:
        """The key of one replica, which can do no more than work its deployment's queue."""
        key = new_key()
        record = ApiKey(
            id=new_id(),
            project_id=project_id,
            name=f"replica {replica_id}",
            prefix=key[:PRINTED_LENGTH],
            scope=Scope.WORKER,
            deployment_id=deployment_id,
            replica_id=replica_id,
            created_at=self._clock(),
        )
        await self._database.write(identities.insert_key, record, hash_key(key))
        self._failed.proved(hash_key(key))
        return key

    async def revoke_replica_keys(self, replica_id: str) -> None:
        """Take back a replica's key."""
        await self._database.write(identities.revoke_replica_keys, replica_id, self._clock())
        self._cache = {
            known_by: entry for known_by, entry in self._cache.items() if entry[1].key.replica_id != replica_id
        }

    async def replicas_with_keys(self) -> frozenset[str]:
        """The replicas, of whichever server, that have a valid key."""
        return await self._database.read(identities.replicas_with_keys)

    async def list_keys(self, organization_id: str | None = None) -> list[ApiKey]:
        """All keys that people use, or those of an organization."""
        return await self._database.read(identities.list_keys, organization_id)

    async def revoke_key(self, key_id: str, *, by: Actor = AT_THE_SERVER, organization_id: str | None = None) -> ApiKey:
        """Revoke a key by its id or its printed prefix.

        Args:
            key_id: Which.
            by: Who does.
            organization_id: It must be of this one.

        Raises:
            NotFound: No valid key is meant by it.
        """
        record = await self._database.write(keys.revoke, key_id, by, self._clock(), organization_id)
        self._cache.clear()
        return record

    def forget(self) -> None:
        """Look at every key anew: some have ended."""
        self._cache.clear()

    async def list_projects(self, organization_id: str | None = None) -> list[tuple[Project, Organization]]:
        """All projects, or those of an organization."""
        return await self._database.read(identities.list_projects, organization_id)

    async def create_project(
        self,
        slug: str,
        name: str | None = None,
        *,
        organization_slug: str | None = None,
        by: Actor = AT_THE_SERVER,
    ) -> tuple[Project, Organization]:
        """A new project.

        Args:
            slug: Its name in URLs, unique among all projects.
            name: Its name for people; None: the slug.
            organization_slug: Whose, made if need be; None: of an organization of its own, with the same slug.
            by: Who makes it.

        Raises:
            InvalidRequest: A slug cannot be one, or the name is too long or not printable.
            AlreadyExists: There is one of this slug.
        """
        keys.check_slug(slug, "slug")
        keys.check_slug(organization_slug or slug, "organization")
        keys.check_name(name or slug)
        return await self._database.write_alone(
            LOCK, keys.create_project, slug, name or slug, organization_slug or slug, by, self._clock()
        )


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
    project = identities.find_project(conn, DEFAULT_SLUG) or keys.insert_project(conn, DEFAULT_SLUG, now)
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


def _has_expired(identity: Identity, now: float) -> bool:
    return identity.key.expires_at is not None and identity.key.expires_at <= now
