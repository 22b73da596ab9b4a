"""What is set once for everybody who uses the database: the first to say it has said it."""

from sqlalchemy import Connection, select

from machineshop.store.statement import Statement
from machineshop.store.tables import settings

# Which storage directory holds the bytes that the rows name.
STORAGE_ID = "storage_id"


def find(conn: Connection, name: str) -> str | None:
    """A setting's value, if it was set yet."""
    value: str | None = conn.execute(select(settings.c.value).where(settings.c.name == name)).scalar()
    return value


def ensure(conn: Connection, name: str, candidate: str) -> str:
    """A setting's value: `candidate` where there was none, also when servers ask for it at once."""
    (row,) = _ENSURE.all(conn, {"name": name, "value": candidate})
    value: str = row[0]
    return value


# An update that changes nothing gives the row back, as an insert that is left out would not.
_ENSURE = Statement(
    "INSERT INTO settings (name, value) VALUES (:name, :value) "
    "ON CONFLICT (name) DO UPDATE SET value = settings.value RETURNING value"
)
