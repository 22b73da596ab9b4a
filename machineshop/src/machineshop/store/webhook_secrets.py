"""What webhooks are signed with, sealed: one row for each project, which only the services can open.

Those of an earlier build lie in the clear in another table until the first start of this one.
"""

from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, and_, select

from machineshop.models import SealedValue
from machineshop.store.secrets import check_key, sealed_value
from machineshop.store.tables import webhook_secrets, webhook_signing

_SEALED = [webhook_signing.c.key_id, webhook_signing.c.nonce, webhook_signing.c.ciphertext]


class InTheClear(NamedTuple):
    """A row of an earlier build."""

    project_id: str
    secret: str
    previous: str | None
    previous_until: float | None


def find(conn: Connection, project_id: str) -> SealedValue | None:
    """What a project's messages are signed with, if it was made yet."""
    row = conn.execute(select(*_SEALED).where(webhook_signing.c.project_id == project_id)).mappings().first()
    return None if row is None else sealed_value(row)


def insert(conn: Connection, project_id: str, sealed: SealedValue, now: float) -> bool:
    """Keep the first of a project; False where there is one already.

    Raises:
        KeyReplaced: It was sealed with an older key.
    """
    check_key(conn, sealed)
    if find(conn, project_id) is not None:
        return False
    values = {"project_id": project_id, "created_at": now, **msgspec.structs.asdict(sealed)}
    conn.execute(webhook_signing.insert().values(**values))
    return True


def replace(conn: Connection, project_id: str, old: SealedValue, new: SealedValue) -> bool:
    """Put another value in the place of one; False where that was replaced meanwhile.

    Raises:
        KeyReplaced: It was sealed with an older key.
    """
    check_key(conn, new)
    return reseal(conn, project_id, old, new)


def reseal(conn: Connection, project_id: str, old: SealedValue, new: SealedValue) -> bool:
    """Put the same value under another key; False where it was changed meanwhile."""
    # A nonce is never used twice, so it tells one sealing from every other.
    guard = and_(webhook_signing.c.project_id == project_id, webhook_signing.c.nonce == old.nonce)
    return conn.execute(webhook_signing.update().where(guard).values(**msgspec.structs.asdict(new))).rowcount == 1


def of_other_keys(conn: Connection, key_id: str, limit: int) -> list[tuple[str, SealedValue]]:
    """Some that are sealed with another key than this, by project."""
    query = select(webhook_signing.c.project_id, *_SEALED).where(webhook_signing.c.key_id != key_id).limit(limit)
    return [(row["project_id"], sealed_value(row)) for row in conn.execute(query).mappings()]


def in_the_clear(conn: Connection) -> list[InTheClear]:
    """What an earlier build has left."""
    columns = (webhook_secrets.c[name] for name in InTheClear._fields)
    return [InTheClear(*row) for row in conn.execute(select(*columns))]


def seal_over(conn: Connection, project_id: str, sealed: SealedValue, now: float) -> None:
    """Put the sealed value in the place of the one in the clear, of which nothing is left in the database's file.

    Raises:
        KeyReplaced: It was sealed with an older key.
    """
    insert(conn, project_id, sealed, now)
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql("PRAGMA secure_delete = ON")
    conn.execute(webhook_secrets.delete().where(webhook_secrets.c.project_id == project_id))
