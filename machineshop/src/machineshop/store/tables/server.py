"""What the servers keep for themselves."""

from sqlalchemy import Column, String, Table, Text

from machineshop.store.tables.base import Timestamp, metadata

settings = Table(
    "settings",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", Text, nullable=False),
)

# Which server runs the control loops: it renews its lease, and another takes it over once it has run out.
leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    # Where the holder is reached.
    Column("base_url", String, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
)
