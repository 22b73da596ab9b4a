"""What differs between the two databases: how to connect, how a transaction begins and ends, which errors are whose.

The driver of Postgres takes a moment to load: nobody imports it where the database is SQLite.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sqlite3
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from machineshop.store.wal import BUSY_TIMEOUT_SECONDS, WriteAheadLog
from machineshop.store.watchdog import Watchdog

if TYPE_CHECKING:
    import psycopg

READERS = 4
# SQLite's own caches; the operating system keeps the file's pages as well.
WRITER_CACHE_KIB = 64 * 1024
READER_CACHE_KIB = 8 * 1024
BUSY_RETRY_SECONDS = 0.005
# A database that does not even take the connection within this is away.
CONNECT_TIMEOUT_SECONDS = 3
# A peer that has acknowledged nothing for this long is gone, however open the connection looks.
SILENCE_SECONDS = 5
# The driver is named, since SQLAlchemy's default for postgresql:// is another one.
POSTGRES_DRIVER = "postgresql+psycopg"
# The channel on which servers tell one another what they have written.
CHANNEL = "machineshop"
# What the database itself ends, in milliseconds: no statement of ours takes this long; a lock is held for one
# transaction, so who waits longer waits for a server that hangs; and such a server loses its transaction, and with it
# the lock, before those who wait for it give up.
SESSION_LIMITS = {
    "statement_timeout": 10_000,
    "lock_timeout": 8_000,
    "idle_in_transaction_session_timeout": 5_000,
}
_UNBOUNDED = contextlib.nullcontext()
_LOCK = "SELECT pg_advisory_xact_lock(%s)"
_NOTIFY = f"SELECT pg_notify('{CHANNEL}', %s) WHERE pg_current_xact_id_if_assigned() IS NOT NULL"
# In what a pool knows of a connection.
_MADE_AT = "made_at"


class Engines:
    """The connections of one database. They leave transactions to us: only the writer begins and commits.

    Args:
        url: The database.
        server_id: Who we are to the other servers on it.
    """

    def __init__(self, url: str, server_id: str = "") -> None:
        self.is_sqlite = is_sqlite(url)
        self.server_id = server_id
        self._watchdog = Watchdog()
        self._lost_at = float("-inf")
        self.engine = _sqlite_engine(url) if self.is_sqlite else self._postgres_engine(url)
        self.log = WriteAheadLog(Path(self.engine.url.database or "")) if self.is_sqlite else None
        self._driver: Any = self.engine.dialect.loaded_dbapi

    def start(self) -> None:
        """Begin to watch over what is under way; SQLite needs no watching."""
        if not self.is_sqlite:
            self._watchdog.start()

    def bound(self, conn: Connection, seconds: float) -> contextlib.AbstractContextManager[None]:
        """Give the connection up where what is done with it in this block takes longer."""
        if self.is_sqlite:
            return _UNBOUNDED
        return self._watchdog.bound(conn.connection.dbapi_connection, seconds)

    def lost(self) -> None:
        """A connection has broken: those that were made before it are not used any more, as they may be dead too."""
        self._lost_at = time.monotonic()

    def prepare_writer(self, driver: Any) -> None:
        """Set up the writer's connection: it waits for locks in `begin` alone, and leaves checkpoints to others."""
        if self.is_sqlite:
            for pragma in (
                "synchronous=NORMAL",  # what it commits is put on disk by `wal.py`
                "busy_timeout=0",
                "wal_autocheckpoint=0",
                f"cache_size={-WRITER_CACHE_KIB}",
            ):
                driver.execute(f"PRAGMA {pragma}")

    def begin(self, driver: Any, locks: Collection[str], seconds: float, *, waits: bool = True) -> None:
        """Begin a transaction that holds these locks, such as those of deployments' queues, against other servers.

        SQLite has one writer anyway; its own idea of a transaction is too late for one: take the lock at once, or time
        out cleanly. On Postgres they are taken in the order of their numbers, so that two servers never wait for each
        other. One round trip does both, and is given up after `seconds`. Without `waits`, a SQLite that another process
        writes raises at once.
        """
        if self.is_sqlite:
            _begin_sqlite(driver, BUSY_TIMEOUT_SECONDS if waits else 0.0)
        else:
            keys = sorted(lock_key(name) for name in locks)
            with self._watchdog.bound(driver, seconds):
                driver.execute("; ".join(["BEGIN", *[_LOCK] * len(keys)]), keys)

    def separate(self, driver: Any, *, first: bool) -> None:
        """Begin the next caller's part of the transaction, which `take_back` undoes by itself."""
        if first:
            driver.execute("SAVEPOINT caller")
        elif self.is_sqlite:
            driver.execute("RELEASE SAVEPOINT caller")
            driver.execute("SAVEPOINT caller")
        else:
            driver.execute("RELEASE SAVEPOINT caller; SAVEPOINT caller")

    def take_back(self, driver: Any) -> None:
        """Undo the part that was begun last."""
        driver.execute("ROLLBACK TO SAVEPOINT caller")

    def commit(self, driver: Any, topics: Collection[str]) -> None:
        """Commit, and tell the other servers of these topics in the same moment, where anything was changed at all."""
        if self.is_sqlite or not topics:
            driver.execute("COMMIT")
        else:
            news = [f"{self.server_id}:{topic}" for topic in sorted(topics)]
            driver.execute("; ".join([*[_NOTIFY] * len(news), "COMMIT"]), news)

    def is_callers_own(self, error: Exception) -> bool:
        """Whether one caller's work failed, and not the database under all of them."""
        cause = _cause(error)
        if not isinstance(cause, self._driver.Error):
            return True
        return isinstance(cause, (self._driver.IntegrityError, self._driver.DataError))

    def is_database(self, error: BaseException) -> bool:
        """Whether the database failed, and not our own code."""
        return isinstance(error, (DBAPIError, self._driver.Error))

    def is_refused_value(self, error: BaseException) -> bool:
        """Whether the database cannot keep a value that somebody sent, such as a zero character in a text."""
        return isinstance(_cause(error), self._driver.DataError)

    def is_away(self, error: BaseException) -> bool:
        """Whether the connection broke or could not be made: the database is away, or about to go."""
        cause = _cause(error)
        return not self.is_sqlite and isinstance(cause, self._driver.OperationalError) and _means_away(cause.sqlstate)

    def is_deadlock(self, error: BaseException) -> bool:
        """Whether two servers waited for each other, and the database has ended this transaction for it."""
        return not self.is_sqlite and isinstance(_cause(error), self._driver.errors.DeadlockDetected)

    def connect_arguments(self) -> dict[str, Any]:
        """What psycopg needs for a connection of its own to the same Postgres."""
        _, arguments = self.engine.dialect.create_connect_args(self.engine.url)
        arguments.pop("context", None)  # SQLAlchemy's own types
        return {**postgres_arguments(self.engine.url), **arguments}

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._watchdog.close()
        self.engine.dispose()
        if self.log is not None:
            self.log.close()

    def _postgres_engine(self, url: str) -> Engine:
        import psycopg  # noqa: PLC0415 - as above

        location = make_url(with_driver(url))
        engine = create_engine(
            location,
            pool_size=READERS + 3,  # the writer, what runs aside, and a try to reach it again
            use_native_hstore=False,
            isolation_level="AUTOCOMMIT",
            # Values are bound on our side: the hot statements use one value in places of several types.
            connect_args={**postgres_arguments(location), "cursor_factory": psycopg.ClientCursor},
        )
        event.listen(engine, "connect", self._prepare_postgres)
        event.listen(engine, "checkout", self._refuse_stale)
        return engine

    def _prepare_postgres(self, connection: psycopg.Connection[Any], record: ConnectionPoolEntry) -> None:
        record.info[_MADE_AT] = time.monotonic()
        connection.autocommit = True
        # Not among the options of the connection's start, which are the URL's own, and which poolers refuse.
        with self._watchdog.bound(connection, CONNECT_TIMEOUT_SECONDS):
            connection.execute("; ".join(f"SET {name} = {value}" for name, value in SESSION_LIMITS.items()))

    def _refuse_stale(self, _connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        if record.info[_MADE_AT] <= self._lost_at:
            raise InvalidatePoolError


def lock_key(name: str) -> int:
    """The number of a lock."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)


def local_address(conn: Connection) -> str | None:
    """The address of this machine on the way to the database; None where that is no way between machines."""
    driver: Any = conn.connection.dbapi_connection
    with socket.socket(fileno=os.dup(driver.pgconn.socket)) as opened:
        return str(opened.getsockname()[0]) if opened.family in {socket.AF_INET, socket.AF_INET6} else None


def is_sqlite(url: str) -> bool:
    """Whether this is the embedded database."""
    return url.startswith("sqlite")


def with_driver(url: str) -> str:
    """The URL with our driver named, for `postgresql://` and `postgres://` alike."""
    scheme, separator, rest = url.partition("://")
    return f"{POSTGRES_DRIVER}://{rest}" if separator and scheme in {"postgresql", "postgres"} else url


def _cause(error: BaseException) -> BaseException:
    """The driver's own error."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _means_away(sqlstate: str | None) -> bool:
    """By the error's code: none (nobody answered), a lost connection, a server that stops, starts or takes no more."""
    return sqlstate is None or sqlstate[:2] == "08" or sqlstate[:3] == "57P" or sqlstate == "53300"


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=READERS + 2,  # the writer, and what is looked up on the event loop
        isolation_level="AUTOCOMMIT",
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _begin_sqlite(driver: Any, busy_seconds: float) -> None:
    """Take SQLite's write lock; while another process has it, try again for so long."""
    end = time.monotonic() + busy_seconds
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                raise
            time.sleep(BUSY_RETRY_SECONDS)
        else:
            return


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # FULL: a commit is acknowledged only once it is on disk, also when the machine loses power.
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        f"cache_size={-READER_CACHE_KIB}",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")


def postgres_arguments(url: URL) -> dict[str, Any]:
    """How to connect to a Postgres, where the URL does not say."""
    arguments: dict[str, Any] = {
        "application_name": "machineshop",
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        # What is sent and not acknowledged, and what is awaited without a word: both end after some seconds.
        "tcp_user_timeout": SILENCE_SECONDS * 1000,
        "keepalives_idle": SILENCE_SECONDS,
        "keepalives_interval": 2,
        "keepalives_count": 3,
    }
    return {name: value for name, value in arguments.items() if name not in url.query}
