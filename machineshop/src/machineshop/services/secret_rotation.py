"""Changing the key that secrets are sealed with, beside running servers; it may be cut off anywhere and begun again.

In this order, so that every secret can be read by every server at any time:

1. The new key is put beside the others, on disk.
2. The store says that it is the one in use: from here on nothing is sealed with another one.
3. Each secret that another key has sealed is sealed anew, and so is what webhooks are signed with.
4. The other keys are taken away.

Whoever begins again finds what is left to do by what is there: a key that is not in use yet, or secrets under another.
"""

import msgspec

from machineshop.errors import InvalidRequest
from machineshop.services.keyring import VARIABLE, KeyRing
from machineshop.services.sealing import SealingKey
from machineshop.services.signing import SEALED_AS
from machineshop.store import secrets as store
from machineshop.store import webhook_secrets
from machineshop.store.database import Database

BATCH = 100
_LOCK = "secrets"


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """What a rotation came to."""

    key_id: str
    """The key that is in use now."""
    sealed_anew: int
    """How many values, of secrets and of webhooks, this run has sealed with it."""
    went_on: bool
    """Whether an earlier run was cut off, and this one went on with its key."""


async def rotate(database: Database, keys: KeyRing) -> Rotated:
    """Seal all secrets with a new key.

    Raises:
        InvalidRequest: The keys are given in the environment, and there is no new one among them.
        KeysInUse: Another rotation is under way.
        SecretsKeyMissing: A key that some secret needs is not there; nothing was changed.
    """
    with keys.rotating():
        for needed in await database.read(store.keys_in_need):
            keys.find(needed)  # a folder that is not the servers' must not get a key that they then seal with
        key_id = await database.read(store.sealing_key)
        key, went_on = await _new_key(database, keys, key_id)
        if key.id != key_id:
            await database.write_alone(_LOCK, store.replace_key, key.id, key_id)
        sealed_anew = await _seal_anew(database, keys, key)
        if not keys.is_given:
            keys.keep_alone(key)
    return Rotated(key_id=key.id, sealed_anew=sealed_anew, went_on=went_on)


async def _new_key(database: Database, keys: KeyRing, key_id: str | None) -> tuple[SealingKey, bool]:
    """The key to change to, and whether an earlier run has chosen it."""
    newest = keys.newest()
    if newest.id != key_id:
        return newest, not keys.is_given and key_id is not None
    if await database.read(store.count_of_other_keys, key_id):
        return newest, True
    if keys.is_given:
        raise InvalidRequest(
            f"{VARIABLE} holds no new key: write one before the present one, with a comma in between, start the "
            "servers again with both, and then rotate. `openssl rand -base64 32` makes a key."
        )
    return keys.add(), False


async def _seal_anew(database: Database, keys: KeyRing, key: SealingKey) -> int:
    sealed_anew = 0
    while batch := await database.read(store.of_other_keys, key.id, BATCH):
        for secret, old in batch:
            value = keys.find(old.key_id).open(secret.project_id, secret.name, old)
            new = key.seal(secret.project_id, secret.name, value)
            # One that was changed meanwhile has the new key by that.
            sealed_anew += await database.write(store.reseal, secret.id, old, new)
    while of_webhooks := await database.read(webhook_secrets.of_other_keys, key.id, BATCH):
        for project_id, old in of_webhooks:
            new = key.seal(project_id, SEALED_AS, keys.find(old.key_id).open(project_id, SEALED_AS, old))
            sealed_anew += await database.write(webhook_secrets.reseal, project_id, old, new)
    return sealed_anew
