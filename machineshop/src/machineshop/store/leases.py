"""Leases: what one server at a time does, by the database's own clock, so that servers' clocks need not agree."""

import msgspec
from sqlalchemy import Connection, text

from machineshop.errors import LeaseLost
from machineshop.store.announcements import announce
from machineshop.store.listener import APPLICATION, application_name
from machineshop.store.statement import Statement

# Announced when a lease was given back, so that another server takes it at once.
LEASES = "leases"


class Tenure(msgspec.Struct, frozen=True):
    """Who holds a lease."""

    holder: str
    base_url: str
    """Where the holder is reached."""
    seconds_left: float


def take(
    conn: Connection, name: str, server_id: str, base_url: str, seconds: float, former: str | None = None
) -> Tenure:
    """Take a lease that nobody holds, or renew one's own; who holds it then, which may be another server.

    Args:
        conn: A connection outside of a transaction.
        name: Which lease.
        server_id: Who wants it.
        base_url: Where other servers reach it.
        seconds: How long it is to last.
        former: An earlier life of this server, which is over for certain: what it held is taken at once.
    """
    values = {"name": name, "holder": server_id, "base_url": base_url, "seconds": seconds, "former": former}
    row = _TAKE.one(conn, values)
    return find(conn, name) if row is None else Tenure(*row)


def find(conn: Connection, name: str) -> Tenure:
    """Who holds a lease, or held it last; nobody's has an empty holder."""
    row = _FIND.one(conn, {"name": name})
    return Tenure("", "", 0.0) if row is None else Tenure(*row)


def give_back(conn: Connection, name: str, server_id: str) -> None:
    """End one's own lease, so that another server may take it at once."""
    if _GIVE_BACK.run(conn, {"name": name, "holder": server_id}).rowcount:
        announce(conn, LEASES)


def check(conn: Connection, name: str, server_id: str) -> None:
    """Refuse the rest of a transaction where another server may have taken the lease.

    Raises:
        LeaseLost: It is not this server's any longer.
    """
    if _CHECK.one(conn, {"name": name, "holder": server_id}) is None:
        raise LeaseLost


def count_others(conn: Connection, server_id: str) -> int:
    """How many other servers listen on this Postgres now."""
    values = {"like": f"{APPLICATION} %", "mine": application_name(server_id)}
    number: int = conn.execute(_OTHERS, values).scalar_one()
    return number


def _clocked(statement: str) -> Statement:
    """A statement in which NOW is the database's clock, in seconds since the epoch."""
    return Statement(
        statement.replace("NOW", "((julianday('now') - 2440587.5) * 86400.0)"),
        postgres=statement.replace("NOW", "(extract(epoch FROM clock_timestamp())::float8)"),
    )


_TAKE = _clocked(
    "INSERT INTO leases (name, holder, base_url, expires_at) VALUES (:name, :holder, :base_url, NOW + :seconds) "
    "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, base_url = excluded.base_url, "
    "expires_at = excluded.expires_at "
    "WHERE leases.holder = :holder OR leases.holder = :former OR leases.expires_at <= NOW "
    "RETURNING holder, base_url, expires_at - NOW"
)
_FIND = _clocked("SELECT holder, base_url, expires_at - NOW FROM leases WHERE name = :name")
_GIVE_BACK = Statement("DELETE FROM leases WHERE name = :name AND holder = :holder")
_CHECK = _clocked("SELECT 1 FROM leases WHERE name = :name AND holder = :holder AND expires_at > NOW")
_OTHERS = text(
    "SELECT count(DISTINCT application_name) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name LIKE :like AND application_name <> :mine"
)
