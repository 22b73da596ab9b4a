"""Runs the store's functions: one writer thread that commits many callers' work at once, and a few readers.

A store function is plain and synchronous, `finish(conn, ...)`; `Database.write` and `Database.read` run it off the
event loop. Writes that arrive while a commit is under way form the next transaction together (group commit): each
still has its own savepoint, so one that fails takes back only its own work, and none is acknowledged before the
transaction is on disk.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from machineshop.errors import MachineshopError, StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

# More callers than this in one transaction gain little and make the first of them wait for the last.
GROUP_LIMIT = 200
READERS = 4
# How long another process (a CLI command beside the server) may hold the write lock before we give up.
BUSY_TIMEOUT_SECONDS = 10


class _Write:
    """One caller's work on its way through the writer thread."""

    __slots__ = ("error", "future", "loop", "operation", "result")

    def __init__(self, operation: Callable[[Connection], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.operation = operation
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        if self.future.done():  # the caller went away; its work is committed all the same
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """The store's connections and threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._write_engine = _engine(url, writer=True)
        self._read_engine = _engine(url, writer=False)
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._closing = False

    def start(self) -> None:
        """Begin to take writes; the schema must be there (`migrate`)."""
        self._writer.start()

    async def write(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a store function in a transaction and return its result once that is on disk.

        Raises:
            StoreUnavailable: The database cannot be written now; nothing of this call was changed.
        """
        if self._closing:
            raise StoreUnavailable("The server is shutting down.")
        write = _Write(lambda conn: function(conn, *args, **kwargs), asyncio.get_running_loop())
        self._writes.put(write)
        result: T = await write.future
        return result

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a store function on a snapshot that holds every acknowledged write."""
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, lambda: self.read_now(function, *args, **kwargs)
        )

    def read_now(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`read` for callers that have no event loop."""
        try:
            with self._read_engine.connect() as conn:
                return function(conn, *args, **kwargs)
        except DBAPIError as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Commit what is queued and end the threads."""
        self._closing = True
        if self._writer.is_alive():
            self._writes.put(None)
            self._writer.join(timeout=BUSY_TIMEOUT_SECONDS + 5)
        self._readers.shutdown()
        self._write_engine.dispose()
        self._read_engine.dispose()

    def _write_loop(self) -> None:
        closing = False
        while not closing:
            group, closing = self._next_group()
            if group:
                self._commit(group)
                _resolve(group)

    def _next_group(self) -> tuple[list[_Write], bool]:
        group: list[_Write] = []
        item = self._writes.get()
        while item is not None:
            group.append(item)
            if len(group) == GROUP_LIMIT:
                return group, False
            try:
                item = self._writes.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Write]) -> None:
        try:
            with self._write_engine.connect() as conn, conn.begin():
                for write in group:
                    _run(conn, write)
        except Exception as error:  # noqa: BLE001 - whatever broke the transaction is every caller's answer
            log.error(  # noqa: TRY400 - a full disk is no defect of ours
                "store.commit_failed writes=%d error=%s", len(group), error
            )
            for write in group:
                write.error = write.error or _unavailable(error)


def _run(conn: Connection, write: _Write) -> None:
    """One caller's work in its own savepoint: what it raises is its own answer and spoils nobody else's."""
    savepoint = conn.begin_nested()
    try:
        write.result = write.operation(conn)
    except MachineshopError as error:
        write.error = error
        savepoint.rollback()
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.IntegrityError):
            raise  # the transaction as a whole is in doubt
        write.error = error
        savepoint.rollback()
    except Exception as error:  # noqa: BLE001 - a defect in one store function is its caller's answer
        write.error = error
        savepoint.rollback()
    else:
        savepoint.commit()


def _resolve(group: list[_Write]) -> None:
    """Hand the answers over to each caller's event loop, in one wake-up per loop."""
    for loop in {write.loop for write in group}:
        mine = [write for write in group if write.loop is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(lambda mine=mine: [write.resolve() for write in mine])  # type: ignore[misc]


def _unavailable(error: BaseException) -> StoreUnavailable:
    cause = str(getattr(error, "orig", None) or error)
    return StoreUnavailable(f"The database cannot be used now ({cause}). Nothing was changed; try again.")


def _engine(url: str, *, writer: bool) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(
        url,
        poolclass=QueuePool if "memory" not in url else NullPool,
        pool_size=1 if writer else READERS,
        max_overflow=READERS,
        connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "isolation_level": None, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    # The driver's own idea of a transaction is too late for a writer: take the lock at once, or time out cleanly.
    begin = "BEGIN IMMEDIATE" if writer else "BEGIN"
    event.listen(engine, "begin", lambda conn: conn.exec_driver_sql(begin))
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # FULL: a commit is acknowledged only once it is on disk, also when the machine loses power.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-65536", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database in a file."""
    return f"sqlite:///{path}"
