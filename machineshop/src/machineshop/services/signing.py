"""What a project's webhooks are signed with: secrets that the platform makes, and keeps sealed as it does the users'.

They are one value for each project, opened for each message and for whoever may ask for it.
"""

import base64
import logging
import secrets
import time
from collections.abc import Callable

import msgspec

from machineshop.errors import ChangedMeanwhile, SecretsKeyMissing
from machineshop.models import SealedValue
from machineshop.services.keyring import KeyRing
from machineshop.store import webhook_secrets as store
from machineshop.store.database import Database
from machineshop.store.secrets import KeyReplaced, sealing_key

log = logging.getLogger(__name__)

SECRET_PREFIX = "whsec_"  # noqa: S105 - no secret, but how receivers know one
SECRET_BYTES = 32
# How long a secret signs along after it was replaced: receivers change over without losing a message.
OVERLAP_SECONDS = 24 * 3600
# What the value is bound to beside its project: no secret of a user's can have this name.
SEALED_AS = "webhook secret"
# A rotation of the key, or of the secret by others, takes one try away.
TRIES = 5


class SigningSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What a project's messages are signed with. It never shows in a text made of it."""

    current: str
    previous: str | None = None
    previous_until: float | None = None
    """Until when the previous one signs along."""

    def __repr__(self) -> str:
        return "SigningSecrets(...)"

    def at(self, now: float) -> list[str]:
        """Those that sign now, the newest first."""
        signs_along = self.previous is not None and self.previous_until is not None and now < self.previous_until
        return [self.current, *([self.previous] if signs_along and self.previous is not None else [])]


_SECRETS = msgspec.json.Decoder(SigningSecrets)


class SigningService:
    """The signing secrets of all projects.

    Args:
        database: The store.
        keys: What they are sealed with; which of them, `SecretService.open` settles.
        clock: Seconds since the epoch.
    """

    def __init__(self, database: Database, keys: KeyRing, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock

    async def open(self) -> None:
        """Seal what an earlier build has left in the clear; without the key in use it stays as it is, and in use."""
        for row in await self._database.read(store.in_the_clear):
            known = SigningSecrets(current=row.secret, previous=row.previous, previous_until=row.previous_until)
            try:
                sealed = await self._seal(row.project_id, known)
                await self._database.write(store.seal_over, row.project_id, sealed, self._clock())
            except SecretsKeyMissing as error:
                log.error("webhooks.key_missing %s", error)  # noqa: TRY400 - it says it all
                return

    async def of_project(self, project_id: str) -> SigningSecrets:
        """What a project's messages are signed with; made when it is first needed.

        Raises:
            SecretsKeyMissing: This server cannot open it.
        """
        for _ in range(TRIES):
            sealed = await self._database.read(store.find, project_id)
            if sealed is not None:
                return self._opened(project_id, sealed)
            await self._try_insert(project_id, SigningSecrets(current=new_secret()))
        raise ChangedMeanwhile(what="webhook secret of the project", name=project_id)

    async def rotate(self, project_id: str) -> SigningSecrets:
        """Sign with a new secret from now on, and for `OVERLAP_SECONDS` with the one before it too.

        Raises:
            SecretsKeyMissing: This server cannot open the one before it.
        """
        for _ in range(TRIES):
            sealed = await self._database.read(store.find, project_id)
            if sealed is None:
                first = SigningSecrets(current=new_secret())
                if await self._try_insert(project_id, first):
                    return first
                continue
            old = self._opened(project_id, sealed)
            until = self._clock() + OVERLAP_SECONDS
            new = SigningSecrets(current=new_secret(), previous=old.current, previous_until=until)
            try:
                again = await self._seal(project_id, new)
                if await self._database.write(store.replace, project_id, sealed, again):
                    return new
            except KeyReplaced:
                continue
        raise ChangedMeanwhile(what="webhook secret of the project", name=project_id)

    async def _try_insert(self, project_id: str, known: SigningSecrets) -> bool:
        sealed = await self._seal(project_id, known)
        try:
            return await self._database.write_alone(_LOCK, store.insert, project_id, sealed, self._clock())
        except KeyReplaced:
            return False

    async def _seal(self, project_id: str, known: SigningSecrets) -> SealedValue:
        key_id = await self._database.read(sealing_key)
        return self._keys.find(key_id or "").seal(project_id, SEALED_AS, msgspec.json.encode(known).decode())

    def _opened(self, project_id: str, sealed: SealedValue) -> SigningSecrets:
        text = self._keys.find(sealed.key_id).open(project_id, SEALED_AS, sealed)
        return _SECRETS.decode(text)


_LOCK = "webhook-secrets"


def new_secret() -> str:
    """A secret as receivers are given it."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
