"""Prepared text for the hot statements: run on the driver's own connection.

Building and wrapping a statement in SQLAlchemy costs as much as SQLite takes to run it, and a job passes through a
dozen of them. The text is written once, with `:name` for values; everything else in the store uses expressions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Protocol

from sqlalchemy import Connection

_NAMED = re.compile(r"(?<!:):([a-z_]+)\b")


class Cursor(Protocol):
    """What both drivers give back."""

    rowcount: int

    def fetchone(self) -> Any:
        """The next row, or None."""

    def fetchall(self) -> list[Any]:
        """All rows that are left."""


class Statement:
    """One statement, for every database that we run on; `postgres` is its text there, where that differs."""

    __slots__ = ("_in_order", "_postgres", "_sqlite")

    def __init__(self, text: str, *, postgres: str | None = None) -> None:
        # SQLite's driver looks up a name for each value that it binds, and numbers cost it nothing.
        names = list(dict.fromkeys(_NAMED.findall(text)))
        self._sqlite = _NAMED.sub(lambda found: f"?{names.index(found[1]) + 1}", text)
        self._in_order = _picker(names)
        self._postgres = _NAMED.sub(r"%(\1)s", postgres or text)

    def run(self, conn: Connection, values: Mapping[str, Any]) -> Cursor:
        """Run it in the connection's transaction."""
        driver: Any = conn.connection.dbapi_connection
        cursor: Cursor
        if conn.dialect.name == "sqlite":
            cursor = driver.execute(self._sqlite, self._in_order(values))
        else:
            cursor = driver.execute(self._postgres, values)
        return cursor

    def run_each(self, conn: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run it once for each of these values."""
        if len(rows) == 1:
            self.run(conn, rows[0])
            return
        driver: Any = conn.connection.dbapi_connection
        if conn.dialect.name == "sqlite":
            driver.executemany(self._sqlite, map(self._in_order, rows))
        else:
            import psycopg  # noqa: PLC0415 - as `engines.py` says

            with psycopg.Cursor(driver) as cursor:  # values bound by the server: all of them in one round trip
                cursor.executemany(self._postgres, rows)

    def all(self, conn: Connection, values: Mapping[str, Any]) -> list[Any]:
        """All its rows."""
        return self.run(conn, values).fetchall()

    def one(self, conn: Connection, values: Mapping[str, Any]) -> Sequence[Any] | None:
        """Its first row; the rest is read too, since a statement that changes rows does so while it is read."""
        rows = self.all(conn, values)
        return rows[0] if rows else None


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Takes the values of these names out of a mapping, in their order."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)
