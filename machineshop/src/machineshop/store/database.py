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
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from machineshop.errors import StoreUnavailable
from machineshop.store.engines import BUSY_TIMEOUT_SECONDS, READERS, Engines
from machineshop.store.wal import LogNotOnDisk

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

# A number of our own among the advisory locks of a database.
SERVER_LOCK = 0x6D73_7365
# More callers than this in one transaction gain little and make the first of them wait for the last.
GROUP_LIMIT = 200


class _Write:
    """One caller's work on its way through the writer thread."""

    __slots__ = ("error", "future", "hand_over", "loop", "operation", "queues", "result")

    def __init__(
        self,
        operation: Callable[[Connection], Any],
        queues: Sequence[str] = (),
        hand_over: Callable[[Any], None] | None = None,
    ) -> None:
        self.operation = operation
        self.queues = queues
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
        self._engines = Engines(url)
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_loop, name="store-writer", daemon=True)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._connection: Connection | None = None
        self._guard: Connection | None = None
        self._closing = False

    def claim_for_one_server(self) -> None:
        """Make sure that no other server works on this database.

        The runtime of one server knows nothing of another's replicas. A file's database is guarded by the lock on its
        data directory; a shared one by a lock that its server holds for us as long as we are connected.

        Raises:
            StoreUnavailable: Another server has it.
        """
        if self._engines.is_sqlite:
            return
        self._guard = self._engines.engine.connect()
        if not self._guard.exec_driver_sql(f"SELECT pg_try_advisory_lock({SERVER_LOCK})").scalar():
            self._guard.close()
            raise StoreUnavailable(
                "Another machineshop is using this database. Several servers on one database are not supported yet: "
                "stop the other one, or name another with --database-url."
            )

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

    async def write_in_queue(
        self, queue: str, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`write` while nobody else, on any server, writes in the queue of this deployment."""
        result: T = await self._queued(_Write(lambda conn: function(conn, *args, **kwargs), (queue,)))
        return result

    async def write_in_queues(self, queues: Sequence[str], function: Callable[[Connection], T]) -> T:
        """`write_in_queue` for several of them."""
        result: T = await self._queued(_Write(function, queues))
        return result

    async def write_handing_over(
        self,
        queue: str,
        hand_over: Callable[[T], None],
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`write_in_queue` that calls `hand_over(result)` on the event loop as soon as the transaction is committed.

        That can be a moment before it is on disk, so it is for what may vanish together with the transaction should
        the power fail in that moment. This call itself returns only when it is on disk, like `write`.
        """
        result: T = await self._queued(_Write(lambda conn: function(conn, *args, **kwargs), (queue,), hand_over))
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
            with self._engines.engine.connect() as conn:
                return function(conn, *args, **kwargs)
        except Exception as error:
            if self._engines.is_database(error):
                raise _unavailable(error) from error
            raise

    def close(self) -> None:
        """Commit what is queued and end the threads."""
        self._closing = True
        if self._writer.is_alive():
            self._writes.put(None)
            self._writer.join(timeout=BUSY_TIMEOUT_SECONDS + 5)
        self._readers.shutdown()
        self._drop_connection()
        if self._guard is not None:
            with contextlib.suppress(Exception):
                self._guard.invalidate()
                self._guard.close()
        self._engines.close()

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
            if self._engines.log is not None and all(write.hand_over for write in group):
                with self._engines.log.synced_by_us(self._connected()):
                    self._transact(group)
                    _on_loops(group, _Write.early)
            else:
                self._transact(group)
        except LogNotOnDisk as error:
            self._drop_connection()
            for write in group:
                write.error = write.error or error
        except Exception as error:  # noqa: BLE001 - whatever broke the transaction is every caller's answer
            self._drop_connection()
            log.error("store.commit_failed writes=%d error=%s", len(group), error)  # noqa: TRY400 - no defect of ours
            for write in group:
                write.error = write.error or _unavailable(error)

    def _begun(self) -> Connection:
        """The writer's connection, in a transaction; one that died while it was idle is replaced."""
        try:
            self._driver(self._connected()).execute(self._engines.begin)
        except Exception as error:
            if self._engines.is_sqlite or not self._engines.is_database(error):
                raise
            self._drop_connection()
            self._driver(self._connected()).execute(self._engines.begin)
        return self._connected()

    def _connected(self) -> Connection:
        """The writer's one connection, kept open; its transactions are begun and ended here alone."""
        if self._connection is None:
            self._connection = self._engines.engine.connect()
        return self._connection

    def _transact(self, group: list[_Write]) -> None:
        conn = self._begun()
        driver = self._driver(conn)
        try:
            self._engines.lock_queues(driver, {queue for write in group for queue in write.queues})
            for write in group:
                self._run(conn, driver, write)
            driver.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(Exception):  # some errors have rolled back already
                driver.execute("ROLLBACK")
            raise

    def _run(self, conn: Connection, driver: Any, write: _Write) -> None:
        """One caller's work in its own savepoint: what it raises is its own answer and spoils nobody else's."""
        driver.execute("SAVEPOINT caller")
        try:
            write.result = write.operation(conn)
        except Exception as error:
            if not self._engines.is_callers_own(error):
                raise  # the transaction as a whole is in doubt
            write.error = error
            driver.execute("ROLLBACK TO SAVEPOINT caller")
        driver.execute("RELEASE SAVEPOINT caller")

    @staticmethod
    def _driver(conn: Connection) -> Any:
        return conn.connection.driver_connection

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.invalidate()
                self._connection.close()
            self._connection = None
        if self._engines.log is not None:
            self._engines.log.close()  # the next connection may make another file of that name


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


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database in a file."""
    return f"sqlite:///{path}"
