"""What every table is made of."""

from collections.abc import Iterable

from sqlalchemy import BigInteger, Float, Integer, MetaData

# SQLite numbers only a column of type INTEGER by itself.
Sequence = BigInteger().with_variant(Integer, "sqlite")
Timestamp = Float(53)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def one_of(column: str, states: Iterable[str]) -> str:
    """The condition that a column holds one of these."""
    return f"{column} IN ({', '.join(repr(str(state)) for state in states)})"
