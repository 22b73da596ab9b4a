"""Secrets: what is known of them, and their sealed values.

Which key new values are sealed with is a setting of the database: a server that still seals with an older one is
refused (`KeyReplaced`), so that after a rotation no row needs the keys before it.
"""

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, func, or_, select
from sqlalchemy.exc import IntegrityError

from machineshop.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from machineshop.models import SealedValue, Secret
from machineshop.store.naming import named
from machineshop.store.tables import secrets, settings, webhook_signing

# The setting with the id of the key that new values are sealed with.
SEALING_KEY = "secrets_key"
# Each start of a replica reads those that it names, and each list shows all.
MAX_SECRETS = 1000

_KNOWN = [column for column in secrets.c if column.name not in {"key_id", "nonce", "ciphertext"}]
_SEALED = [secrets.c.key_id, secrets.c.nonce, secrets.c.ciphertext]


class KeyReplaced(Conflict):
    """Secrets are no longer sealed with the key {key_id}: seal this one again."""


def insert(conn: Connection, secret: Secret, sealed: SealedValue) -> None:
    """Add a secret.

    Raises:
        AlreadyExists: The project has one of this name.
        InvalidRequest: The project has as many as it may.
        KeyReplaced: Its value was sealed with an older key.
    """
    check_key(conn, sealed)
    same_name = and_(secrets.c.project_id == secret.project_id, secrets.c.name == secret.name)
    conn.execute(secrets.delete().where(same_name, secrets.c.expires_at <= secret.created_at))
    of_project = select(func.count()).select_from(secrets).where(secrets.c.project_id == secret.project_id)
    if conn.execute(of_project).scalar_one() >= MAX_SECRETS:
        raise InvalidRequest(f"This project has {MAX_SECRETS} secrets, and no more may be: delete some.")
    try:
        conn.execute(secrets.insert().values(**msgspec.structs.asdict(secret), **msgspec.structs.asdict(sealed)))
    except IntegrityError as error:
        raise AlreadyExists(what="secret", name=secret.name) from error


def get(conn: Connection, project_id: str, name_or_id: str, now: float) -> Secret | None:
    """A secret by its name or id; one that has expired is none."""
    query = select(*_KNOWN).where(secrets.c.project_id == project_id, _lives(now))
    row = conn.execute(named(query, secrets.c.name, secrets.c.id, name_or_id)).mappings().first()
    return None if row is None else Secret(**row)


def list_all(conn: Connection, project_id: str, now: float) -> list[Secret]:
    """A project's secrets, by name."""
    query = select(*_KNOWN).where(secrets.c.project_id == project_id, _lives(now)).order_by(secrets.c.name)
    return [Secret(**row) for row in conn.execute(query).mappings()]


def update(conn: Connection, secret: Secret, sealed: SealedValue | None) -> None:
    """Put a changed secret, with a new value where there is one, in the place of the one with its id.

    Raises:
        NotFound: It is gone.
        KeyReplaced: Its value was sealed with an older key.
    """
    values = msgspec.structs.asdict(secret)
    if sealed is not None:
        check_key(conn, sealed)
        values |= msgspec.structs.asdict(sealed)
    guard = and_(secrets.c.project_id == secret.project_id, secrets.c.id == secret.id)
    if conn.execute(secrets.update().where(guard).values(**values)).rowcount == 0:
        raise NotFound(what="secret", id=secret.name)


def delete(conn: Connection, project_id: str, name_or_id: str, now: float) -> Secret | None:
    """Take a secret away; None where there is none such."""
    found = get(conn, project_id, name_or_id, now)
    if found is not None:
        conn.execute(secrets.delete().where(secrets.c.project_id == project_id, secrets.c.id == found.id))
    return found


def sealed_values(conn: Connection, project_id: str, names: Collection[str], now: float) -> dict[str, SealedValue]:
    """The values of those of these secrets that there are, by name."""
    wanted = and_(secrets.c.project_id == project_id, secrets.c.name.in_(sorted(names)), _lives(now))
    rows = conn.execute(select(secrets.c.name, *_SEALED).where(wanted)).mappings()
    return {row["name"]: sealed_value(row) for row in rows}


def expiries(conn: Connection, project_id: str, now: float) -> dict[str, float | None]:
    """When each of a project's secrets expires, by name."""
    query = select(secrets.c.name, secrets.c.expires_at).where(secrets.c.project_id == project_id, _lives(now))
    return {row.name: row.expires_at for row in conn.execute(query)}


def delete_expired(conn: Connection, now: float) -> list[Secret]:
    """Take away what has expired, in every project."""
    statement = secrets.delete().where(secrets.c.expires_at <= now).returning(*_KNOWN)
    return [Secret(**row) for row in conn.execute(statement).mappings()]


def expiring(conn: Connection, now: float, until: float) -> list[Secret]:
    """What expires soon, in every project."""
    soon = and_(secrets.c.expires_at > now, secrets.c.expires_at <= until)
    return [Secret(**row) for row in conn.execute(select(*_KNOWN).where(soon)).mappings()]


def sealing_key(conn: Connection) -> str | None:
    """The id of the key that values are sealed with now; None before the first."""
    key_id: str | None = conn.execute(select(settings.c.value).where(settings.c.name == SEALING_KEY)).scalar()
    return key_id


def replace_key(conn: Connection, key_id: str, instead_of: str | None) -> bool:
    """Seal with this key from now on; False where another one than `instead_of` is in use by now."""
    if instead_of is None:
        if sealing_key(conn) is not None:
            return False
        conn.execute(settings.insert().values(name=SEALING_KEY, value=key_id))
        return True
    guard = and_(settings.c.name == SEALING_KEY, settings.c.value == instead_of)
    return conn.execute(settings.update().where(guard).values(value=key_id)).rowcount == 1


def keys_in_need(conn: Connection) -> set[str]:
    """The ids of the keys that values of any project are sealed with; where there is no value, of the one in use."""
    tables = (secrets, webhook_signing)
    found = {key_id for table in tables for key_id in conn.execute(select(table.c.key_id).distinct()).scalars()}
    current = sealing_key(conn)
    return found or ({current} if current is not None else set())


def count_of_other_keys(conn: Connection, key_id: str) -> int:
    """How many values of all projects, of secrets and of webhooks, are sealed with another key than this."""
    counts = (
        select(func.count()).select_from(table).where(table.c.key_id != key_id) for table in (secrets, webhook_signing)
    )
    return sum(conn.execute(count).scalar_one() for count in counts)


def of_other_keys(conn: Connection, key_id: str, limit: int) -> list[tuple[Secret, SealedValue]]:
    """Some secrets that are sealed with another key than this."""
    query = select(secrets).where(secrets.c.key_id != key_id).order_by(secrets.c.id).limit(limit)
    rows = conn.execute(query).mappings()
    return [(Secret(**{column.name: row[column.name] for column in _KNOWN}), sealed_value(row)) for row in rows]


def reseal(conn: Connection, secret_id: str, old: SealedValue, new: SealedValue) -> bool:
    """Put the same value under another key; False where it was changed or deleted meanwhile."""
    # A nonce is never used twice, so it tells one sealing from every other.
    guard = and_(secrets.c.id == secret_id, secrets.c.key_id == old.key_id, secrets.c.nonce == old.nonce)
    return conn.execute(secrets.update().where(guard).values(**msgspec.structs.asdict(new))).rowcount == 1


def check_key(conn: Connection, sealed: SealedValue) -> None:
    """Refuse what was sealed with an older key. Held until the end of the transaction: no rotation begins in it.

    Raises:
        KeyReplaced: It was.
    """
    current = select(settings.c.value).where(settings.c.name == SEALING_KEY).with_for_update(read=True)
    if conn.execute(current).scalar() != sealed.key_id:
        raise KeyReplaced(key_id=sealed.key_id)


def _lives(now: float) -> ColumnElement[bool]:
    return or_(secrets.c.expires_at.is_(None), secrets.c.expires_at > now)


def sealed_value(row: Any) -> SealedValue:
    """The sealed value of a row."""
    return SealedValue(key_id=row["key_id"], nonce=bytes(row["nonce"]), ciphertext=bytes(row["ciphertext"]))
