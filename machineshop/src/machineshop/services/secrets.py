"""Secrets: setting and deleting them, and giving their values to the replicas that start.

A value comes in with a request and is sealed before anything else is done with it; it is opened only for the
environment of a replica that is about to start.
"""

import logging
import time
from collections.abc import Callable, Mapping

import msgspec
from sqlalchemy import Connection

from machineshop.errors import InvalidRequest, MalformedBody, NotFound, SecretMissing, SecretsKeyMissing
from machineshop.ids import new_id
from machineshop.models import SealedValue, Secret
from machineshop.services.deployment_rules import secrets_of
from machineshop.services.deployments import DeploymentService
from machineshop.services.keyring import KeyRing
from machineshop.services.secret_rules import SecretFields, check
from machineshop.store import deployments as stored_deployments
from machineshop.store import secrets as store
from machineshop.store.database import Database

log = logging.getLogger(__name__)

# The last day before a secret is deleted: whoever looks at the log once a day sees it.
WARN_SECONDS = 86_400
# A rotation takes one try away; two that follow one another at once are unlikely enough.
TRIES = 5
_LOCK = "secrets"


class SecretService:
    """The secrets of all projects.

    Args:
        database: The store.
        keys: What they are sealed with.
        deployments: Who uses them.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        keys: KeyRing,
        deployments: DeploymentService,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._keys = keys
        self._deployments = deployments
        self._clock = clock
        self._warned: set[tuple[str, float | None]] = set()

    async def open(self) -> None:
        """Settle on the key at the first start; a server that lacks the one in use says so and serves on.

        Raises:
            KeysUnusable: The keys cannot be read, or none can be made.
        """
        key_id = await self._database.read(store.sealing_key)
        if key_id is not None:
            try:
                self._keys.find(key_id)
            except SecretsKeyMissing as error:
                if await self._database.read(store.count_of_other_keys, ""):
                    log.error("secrets.key_missing key_id=%s %s", key_id, error)  # noqa: TRY400 - it says it all
                    return
            else:
                return
        newest = self._keys.newest()
        await self._database.write_alone(_LOCK, store.replace_key, newest.id, key_id)

    async def create(self, project_id: str, fields: SecretFields, key_id: str) -> tuple[Secret, list[str]]:
        """A new secret.

        Args:
            project_id: Whose it is.
            fields: `name` and `value` are required.
            key_id: The API key that sets it.

        Returns:
            As `update`: a deployment may have been waiting for it.

        Raises:
            InvalidRequest: A field is missing or wrong.
            AlreadyExists: The project has one of this name.
        """
        check(fields)
        name, value = _required(fields.name, "name"), _required(fields.value, "value")
        now = self._clock()
        secret = Secret(
            id=new_id(),
            project_id=project_id,
            name=name,
            description=fields.description or "",
            created_at=now,
            updated_at=now,
            created_by=key_id,
            last_updated_by=key_id,
        )
        secret = _with_ttl(secret, fields, now)
        await self._seal(secret, value, store.insert)
        return secret, await self._redeploy(project_id, name) if fields.redeploy else []

    async def get(self, project_id: str, name_or_id: str) -> Secret:
        """A secret by its name or id.

        Raises:
            NotFound: The project has none such, or it has expired.
        """
        secret = await self._database.read(store.get, project_id, name_or_id, self._clock())
        if secret is None:
            raise NotFound(what="secret", id=name_or_id)
        return secret

    async def list_all(self, project_id: str) -> list[Secret]:
        """A project's secrets, by name."""
        return await self._database.read(store.list_all, project_id, self._clock())

    async def update(
        self, project_id: str, name_or_id: str, fields: SecretFields, key_id: str
    ) -> tuple[Secret, list[str]]:
        """Change a secret; what is left out stays. Its time to live begins anew with a new value or a new one.

        Returns:
            The secret, and the names of the deployments whose replicas are replaced, where that was asked for.

        Raises:
            InvalidRequest: A field is wrong.
            NotFound: The project has none such.
        """
        check(fields)
        now = self._clock()
        secret = await self.get(project_id, name_or_id)
        if fields.name not in {secret.name, msgspec.UNSET}:
            raise InvalidRequest(
                f"A secret's name cannot be changed (from '{secret.name}' to '{fields.name}'), since deployments know "
                "it by that: set one under the new name, and delete the old one.",
                param="name",
            )
        if fields.description is not msgspec.UNSET:
            secret = msgspec.structs.replace(secret, description=fields.description or "")
        secret = _with_ttl(msgspec.structs.replace(secret, updated_at=now, last_updated_by=key_id), fields, now)
        if isinstance(fields.value, str):
            await self._seal(secret, fields.value, store.update)
        else:
            await self._database.write(store.update, secret, None)
        return secret, await self._redeploy(project_id, secret.name) if fields.redeploy else []

    async def delete(self, project_id: str, name_or_id: str) -> tuple[Secret, list[str]]:
        """Take a secret away. Replicas that run keep its value; none that names it starts any more.

        Returns:
            What it was, and the names of the deployments that still name it.

        Raises:
            NotFound: The project has none such.
        """
        secret = await self._database.write(store.delete, project_id, name_or_id, self._clock())
        if secret is None:
            raise NotFound(what="secret", id=name_or_id)
        return secret, await self._users(project_id, secret.name)

    async def expiries(self, project_id: str) -> dict[str, float | None]:
        """When each of a project's secrets expires, by name; None: never."""
        return await self._database.read(store.expiries, project_id, self._clock())

    async def reveal(self, project_id: str, variables: Mapping[str, str]) -> dict[str, str]:
        """The values of the variables of a replica that is about to start.

        Args:
            project_id: Whose secrets.
            variables: The names of secrets, by variable.

        Raises:
            SecretMissing: Some of them are not there, or have expired.
            SecretsKeyMissing: This server cannot open them.
            SecretUnreadable: One is damaged.
        """
        names = frozenset(variables.values())
        sealed = await self._database.read(store.sealed_values, project_id, names, self._clock())
        if missing := {variable: name for variable, name in variables.items() if name not in sealed}:
            raise SecretMissing(missing)
        values = {name: self._keys.find(each.key_id).open(project_id, name, each) for name, each in sealed.items()}
        return {variable: values[name] for variable, name in variables.items()}

    async def expire(self, now: float) -> list[Secret]:
        """Delete what has expired, and warn once of each that does within a day; returns what was deleted."""
        gone = await self._database.write(store.delete_expired, now)
        for secret in gone:
            users = ",".join(await self._users(secret.project_id, secret.name))
            log.warning("secret.expired project_id=%s name=%s used_by=%s", secret.project_id, secret.name, users)
        soon = await self._database.read(store.expiring, now, now + WARN_SECONDS)
        for secret in soon:
            if (secret.id, secret.expires_at) not in self._warned:
                users = ",".join(await self._users(secret.project_id, secret.name))
                hours = ((secret.expires_at or now) - now) / 3600
                log.warning(
                    "secret.expires_soon project_id=%s name=%s hours=%.1f used_by=%s",
                    *(secret.project_id, secret.name, hours, users),
                )
        self._warned = {(secret.id, secret.expires_at) for secret in soon}
        return gone

    async def _seal(
        self, secret: Secret, value: str, store_it: Callable[[Connection, Secret, SealedValue], None]
    ) -> None:
        """Store a secret with its value, sealed with the key that is in use in that moment."""
        for _ in range(TRIES - 1):
            try:
                return await self._seal_once(secret, value, store_it)
            except store.KeyReplaced:
                continue
        return await self._seal_once(secret, value, store_it)

    async def _seal_once(
        self, secret: Secret, value: str, store_it: Callable[[Connection, Secret, SealedValue], None]
    ) -> None:
        key_id = await self._database.read(store.sealing_key)
        key = self._keys.find(key_id or "")
        await self._database.write(store_it, secret, key.seal(secret.project_id, secret.name, value))

    async def _redeploy(self, project_id: str, name: str) -> list[str]:
        users = await self._users(project_id, name)
        for user in users:
            await self._deployments.restart(project_id, user)
        return users

    async def _users(self, project_id: str, name: str) -> list[str]:
        """The names of the deployments that name a secret."""
        live = await self._database.read(stored_deployments.list_live, project_id)
        return [deployment.name for deployment in live if name in secrets_of(deployment.config).values()]


def _required(value: str | msgspec.UnsetType, field: str) -> str:
    if isinstance(value, str):
        return value
    raise MalformedBody(f"Object missing required field `{field}`.", param=field)


def _with_ttl(secret: Secret, fields: SecretFields, now: float) -> Secret:
    if fields.ttl_seconds is None:
        return msgspec.structs.replace(secret, ttl_seconds=None, expires_at=None)
    ttl_seconds = secret.ttl_seconds if fields.ttl_seconds is msgspec.UNSET else fields.ttl_seconds
    begins_anew = isinstance(fields.ttl_seconds, int) or isinstance(fields.value, str)
    if ttl_seconds is None or not begins_anew:
        return secret
    return msgspec.structs.replace(secret, ttl_seconds=ttl_seconds, expires_at=now + ttl_seconds)
