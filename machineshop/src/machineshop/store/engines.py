"""What differs between the two databases: how to connect, how a transaction begins, which errors are whose."""

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from machineshop.store.wal import WriteAheadLog

READERS = 4
# How long another process (a CLI command beside the server) may hold the write lock before we give up.
BUSY_TIMEOUT_SECONDS = 10
# A database that does not even take the connection within this is away.
CONNECT_TIMEOUT_SECONDS = 5
# The driver is named, since SQLAlchemy's default for postgresql:// is another one.
POSTGRES_DRIVER = "postgresql+psycopg"


class Engines:
    """The connections of one database. They leave transactions to us: only the writer begins and commits."""

    def __init__(self, url: str) -> None:
        self.is_sqlite = is_sqlite(url)
        self.engine = _sqlite_engine(url) if self.is_sqlite else _postgres_engine(url)
        # SQLite's own idea of a transaction is too late for a writer: take the lock at once, or time out cleanly.
        self.begin = "BEGIN IMMEDIATE" if self.is_sqlite else "BEGIN"
        self.log = WriteAheadLog(Path(self.engine.url.database or "")) if self.is_sqlite else None
        self._driver: Any = self.engine.dialect.loaded_dbapi

    def lock_queues(self, driver: Any, queues: set[str]) -> None:
        """Let nobody else write in the queues of these deployments until the transaction ends.

        SQLite has one writer anyway. In the order of their numbers, so that two servers never wait for each other.
        """
        if queues and not self.is_sqlite:
            keys = sorted(lock_key(queue) for queue in queues)
            driver.execute("SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key", (keys,))

    def is_callers_own(self, error: Exception) -> bool:
        """Whether one caller's work failed, and not the database under all of them."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        return not isinstance(cause, self._driver.Error) or isinstance(cause, self._driver.IntegrityError)

    def is_database(self, error: BaseException) -> bool:
        """Whether the database failed, and not our own code."""
        return isinstance(error, (DBAPIError, self._driver.Error))

    def close(self) -> None:
        """Close every connection that is not in use."""
        self.engine.dispose()
        if self.log is not None:
            self.log.close()


def lock_key(queue: str) -> int:
    """The number by which a queue is locked."""
    return int.from_bytes(hashlib.blake2b(queue.encode(), digest_size=8).digest(), signed=True)


def is_sqlite(url: str) -> bool:
    """Whether this is the embedded database."""
    return url.startswith("sqlite")


def with_driver(url: str) -> str:
    """The URL with our driver named, for `postgresql://` and `postgres://` alike."""
    scheme, separator, rest = url.partition("://")
    return f"{POSTGRES_DRIVER}://{rest}" if separator and scheme in {"postgresql", "postgres"} else url


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=READERS + 1,
        isolation_level="AUTOCOMMIT",
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # FULL: a commit is acknowledged only once it is on disk, also when the machine loses power.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-65536", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _postgres_engine(url: str) -> Engine:
    return create_engine(
        with_driver(url),
        pool_size=READERS + 1,
        # A connection that died with the database is replaced before anybody notices.
        pool_pre_ping=True,
        isolation_level="AUTOCOMMIT",
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": "machineshop",
            # Values are bound on our side: the hot statements use one value in places of several types.
            "cursor_factory": psycopg.ClientCursor,
        },
    )
