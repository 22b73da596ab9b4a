"""Who may do what in the registry: by an API key, or by a short-lived token that was made for one."""

import secrets
import time
from collections.abc import Callable, Iterable

import msgspec

from machineshop.errors import NotAuthenticated
from machineshop.models import ApiKey, Identity, Scope
from machineshop.services.identity import IdentityService
from machineshop.services.registry_tokens import (
    ACTIONS_OF_KEYS,
    LIFETIME_SECONDS,
    PULL,
    TOKEN_PREFIX,
    Claims,
    Grant,
    grants,
    read,
    sign,
)
from machineshop.store import identities, settings
from machineshop.store.database import Database

OWN_PREFIX = "project:"
"""No key's id begins so."""
PULL_SECONDS = 3600
TOKEN_KEY = "registry_token_key"  # noqa: S105 - the name of a setting


class Visitor(msgspec.Struct, frozen=True):
    """Who makes a request to the registry, and what its token limits it to; a key limits to nothing."""

    identity: Identity
    claims: Claims | None = None

    def may(self, name: str, action: str) -> bool:
        """Whether this may be done in the organization's repository of this name."""
        if self.claims is not None and not self.claims.allow(name, action):
            return False
        return action in ACTIONS_OF_KEYS[self.identity.key.scope]


class RegistryAccess:
    """Takes keys and tokens, and makes tokens. Servers that share a database take one another's."""

    def __init__(self, database: Database, identity: IdentityService, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._identity = identity
        self._clock = clock
        self._secret: bytes | None = None

    async def authenticate(self, credential: str | None, address: str | None = None) -> Visitor:
        """Whose key or token this is.

        Raises:
            NotAuthenticated: It is missing, unknown, revoked or expired, or the token's key is.
        """
        if credential is None or not credential.startswith(TOKEN_PREFIX):
            return Visitor(await self._identity.authenticate(credential, address))
        claims = read(await self._signing_secret(), credential, self._clock())
        if claims.key_id.startswith(OWN_PREFIX):
            return Visitor(await self._own_identity(claims.key_id.removeprefix(OWN_PREFIX)), claims)
        return Visitor(await self._identity.owner_of(claims.key_id), claims)

    async def issue(self, key: str | None, scopes: Iterable[str], address: str | None = None) -> str:
        """A token for the bearer of an API key, which holds for `LIFETIME_SECONDS`.

        Arguments:
            key: An API key; a token does not make tokens, or it would never end. The platform's own, with which an
                engine pulls, is given back as it is: some engines know passwords alone, and ask with it.
            scopes: What it is for, as `repository:<name>:<actions>`; what the key may not do is left out.
            address: Where the request came from.

        Raises:
            NotAuthenticated: The key is missing, unknown or revoked.
        """
        if key is not None and key.startswith(TOKEN_PREFIX):
            claims = read(await self._signing_secret(), key, self._clock())
            if claims.key_id.startswith(OWN_PREFIX):
                return key
            raise NotAuthenticated("Another token is to be had for an API key only.")
        identity = await self._identity.authenticate(key, address)
        claims = Claims(identity.key.id, int(self._clock()) + LIFETIME_SECONDS, grants(identity, scopes))
        return sign(await self._signing_secret(), claims)

    async def issue_pull(self, project_id: str, name: str) -> str:
        """A token of the platform's own, with which an engine pulls one repository for a deployment of this project.

        It holds for `PULL_SECONDS`, as an engine cannot ask for another in the middle of a pull.
        """
        claims = Claims(f"{OWN_PREFIX}{project_id}", int(self._clock()) + PULL_SECONDS, (Grant(name, (PULL,)),))
        return sign(await self._signing_secret(), claims)

    async def _own_identity(self, project_id: str) -> Identity:
        """The platform itself, acting for a project: it can pull that project's images, and nothing else."""
        project, organization = await self._database.read(identities.get_project, project_id)
        key = ApiKey(
            id=f"{OWN_PREFIX}{project_id}",
            project_id=project_id,
            name="the platform",
            prefix="",
            scope=Scope.WORKER,
            created_at=0.0,
        )
        return Identity(key, project, organization)

    async def _signing_secret(self) -> bytes:
        if self._secret is None:
            stored = await self._database.read(settings.find, TOKEN_KEY)
            if stored is None:
                stored = await self._database.write(settings.ensure, TOKEN_KEY, secrets.token_hex(32))
            self._secret = bytes.fromhex(stored)
        return self._secret
