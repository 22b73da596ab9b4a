"""Runs the store's functions: one writer thread that commits many callers' work at once, and a few readers.

A store function is plain and synchronous, `finish(conn, ...)`; `Database.write` and `Database.read` run it off the
event loop. Writes that arrive while a commit is under way form the next transaction together (group commit): each
still has its own savepoint, so one that fails takes back only its own work, and none is acknowledged before the
transaction is on disk.
"""

import asyncio
import contextlib
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
from sqlalchemy.pool import QueuePool

from machineshop.errors import StoreUnavailable
from machineshop.store.wal import WriteAheadLog

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

    __slots__ = ("error", "future", "hand_over", "loop", "operation", "result")

    def __init__(self, operation: Callable[[Connection], Any], hand_over: Callable[[Any], None] | None = None) -> None:
        self.operation = operation
        self.hand_over = hand_over
        self.loop = loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def early(self) -> None:
        """Its result can be seen by others now, and is not on disk yet."""
        if self.hand_over is not None and self.error is None:
            self.hand_over(self.result)
            self.hand_over = None

    def resolve(self) -> None:
        """Answer the caller."""
        self.early()
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
        self._engine = _engine(url)
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._connection: Connection | None = None
        # The driver's own idea of a transaction is too late for a writer: take the lock at once, or time out cleanly.
        self._begin = "BEGIN IMMEDIATE" if url.startswith("sqlite") else "BEGIN"
        self._log = WriteAheadLog(Path(self._engine.url.database or "")) if url.startswith("sqlite") else None
        self._closing = False

    def start(self) -> None:
        """Begin to take writes; the schema must be there (`migrate`)."""
        self._writer.start()

    async def write(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a store function in a transaction and return its result once that is on disk.

        Raises:
            StoreUnavailable: The database cannot be written now; nothing of this call was changed.
        """
        result: T = await self._queued(_Write(lambda conn: function(conn, *args, **kwargs)))
        return result

    async def write_handing_over(
        self,
        hand_over: Callable[[T], None],
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`write` that calls `hand_over(result)` on the event loop as soon as the transaction is committed.

        That can be a moment before it is on disk, so it is for what may vanish together with the transaction should
        the power fail in that moment. This call itself returns only when it is on disk, like `write`.
        """
        result: T = await self._queued(_Write(lambda conn: function(conn, *args, **kwargs), hand_over))
        return result

    async def _queued(self, write: _Write) -> Any:
        if self._closing:
            raise StoreUnavailable("The server is shutting down.")
        self._writes.put(write)
        return await write.future

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a store function on a snapshot that holds every acknowledged write."""
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, lambda: self.read_now(function, *args, **kwargs)
        )

    def read_now(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`read` for callers that have no event loop."""
        try:
            with self._engine.connect() as conn:
                return function(conn, *args, **kwargs)
        except (DBAPIError, sqlite3.Error) as error:
            raise _unavailable(error) from error

    def close(self) -> None:
        """Commit what is queued and end the threads."""
        self._closing = True
        if self._writer.is_alive():
            self._writes.put(None)
            self._writer.join(timeout=BUSY_TIMEOUT_SECONDS + 5)
        self._readers.shutdown()
        self._drop_connection()
        self._engine.dispose()
        if self._log is not None:
            self._log.close()

    def _write_loop(self) -> None:
        closing = False
        while not closing:
            group, closing = self._next_group()
            if group:
                self._commit(group)
                _on_loops(group, _Write.resolve)

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
        """One transaction for all of them, on disk when this returns."""
        try:
            conn = self._writer_connection()
            if self._log is not None and all(write.hand_over for write in group):
                with self._log.synced_by_us(conn):
                    self._transact(conn, group)
                    _on_loops(group, _Write.early)
            else:
                self._transact(conn, group)
        except Exception as error:  # noqa: BLE001 - whatever broke the transaction is every caller's answer
            self._drop_connection()
            log.error("store.commit_failed writes=%d error=%s", len(group), error)  # noqa: TRY400 - no defect of ours
            for write in group:
                write.error = write.error or _unavailable(error)

    def _transact(self, conn: Connection, group: list[_Write]) -> None:
        driver: Any = conn.connection.driver_connection
        driver.execute(self._begin)
        try:
            for write in group:
                _run(conn, driver, write)
            driver.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):  # some errors have rolled back already
                driver.execute("ROLLBACK")
            raise

    def _writer_connection(self) -> Connection:
        """The writer's one connection, kept open; its transactions are begun and ended by `_commit` alone."""
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.invalidate()
                self._connection.close()
            self._connection = None


def _run(conn: Connection, driver: Any, write: _Write) -> None:
    """One caller's work in its own savepoint: what it raises is its own answer and spoils nobody else's."""
    driver.execute("SAVEPOINT caller")
    try:
        write.result = write.operation(conn)
    except Exception as error:
        if not _is_callers_own(error):
            raise  # the transaction as a whole is in doubt
        write.error = error
        driver.execute("ROLLBACK TO caller")
    driver.execute("RELEASE caller")


def _is_callers_own(error: Exception) -> bool:
    """Whether one caller's work failed, and not the database under all of them."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return not isinstance(cause, sqlite3.Error) or isinstance(cause, sqlite3.IntegrityError)


def _on_loops(group: list[_Write], step: Callable[[_Write], None]) -> None:
    """Take a step for each write on its caller's event loop, in one wake-up per loop."""
    for loop in {write.loop for write in group}:
        mine = [write for write in group if write.loop is loop]
        with contextlib.suppress(RuntimeError):  # a loop that has ended has nobody waiting
            loop.call_soon_threadsafe(_step_all, step, mine)


def _step_all(step: Callable[[_Write], None], writes: list[_Write]) -> None:
    for write in writes:
        step(write)


def _unavailable(error: BaseException) -> StoreUnavailable:
    cause = str(getattr(error, "orig", None) or error)
    return StoreUnavailable(f"The database cannot be used now ({cause}). Nothing was changed; try again.")


def _engine(url: str) -> Engine:
    """Connections that leave transactions to us: the writer begins and commits, a reader's statements see one each."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True, isolation_level="AUTOCOMMIT")
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


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database in a file."""
    return f"sqlite:///{path}"
