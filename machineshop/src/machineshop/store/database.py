"""Runs the store's functions: a writer thread that commits many callers' work at once, and a few readers.

A store function is plain and synchronous, `finish(conn, ...)`; `Database.write` and `Database.read` run it off the
event loop. On a Postgres several servers do so side by side: each tells the others what it has written
(`Database.listen`), and while the database is away every caller is told so at once (`outage.py`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, make_url

from machineshop.errors import StoreUnavailable
from machineshop.ids import new_id
from machineshop.store import announcements
from machineshop.store.engines import READERS, Engines, is_sqlite
from machineshop.store.failures import refused_value, unavailable
from machineshop.store.listener import Listener
from machineshop.store.outage import Outage
from machineshop.store.write import Write
from machineshop.store.writer import Writer

P = ParamSpec("P")
T = TypeVar("T")

# Longer than the database's own limit for a statement.
READ_SECONDS = 12.0


class Database:
    """The store's connections and threads.

    Args:
        url: Where it is.
        server_id: Who we are to the other servers on it; None: nobody.
    """

    def __init__(self, url: str, server_id: str | None = None) -> None:
        self.server_id = server_id or new_id()
        self._engines = Engines(url, self.server_id)
        self._outage = Outage(self._reach)
        self._writer = Writer(self._engines, self._outage, self._announced)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="store-aside")
        self._lookups: Connection | None = None
        self._listener: Listener | None = None
        self._closing = False
        self._announcements: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)

    @property
    def is_shared(self) -> bool:
        """Whether other servers may use it at the same time; a file is one server's alone."""
        return not self._engines.is_sqlite

    def start(self) -> None:
        """Begin to take writes; the schema must be there (`migrate`)."""
        self._engines.start()
        self._writer.start()

    def on_announced(self, topic: str, listener: Callable[[], None]) -> None:
        """Have `listener` called on the event loop after transactions, of any server, that have announced the topic."""
        self._announcements[topic].append(listener)

    def listen(self, heard: Callable[[str], None], missed: Callable[[], None]) -> None:
        """Begin to hear what other servers write; on a database that is not shared there is nothing to hear.

        Args:
            heard: Called with the deployment in whose queue another server has written.
            missed: Called when that may have happened unheard: at the beginning, and after the connection was lost.
        """

        def take(news: str) -> None:
            topic = announcements.from_others(news)
            if topic is None:
                heard(news)
            else:
                self._announced(topic)

        def take_all() -> None:
            missed()
            for topic in list(self._announcements):
                self._announced(topic)

        if self.is_shared:
            self._listener = Listener(self._engines, take, take_all)
            self._listener.start()

    async def hang_up(self) -> None:
        """Hear nothing more."""
        if self._listener is not None:
            await self._listener.close()

    async def write(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a store function in a transaction and return its result once that is on disk.

        Raises:
            StoreUnavailable: The database cannot be written now; nothing of this call was changed.
            CommitUnknown: The connection broke during the commit.
        """
        result: T = await self._queued(Write(lambda conn: function(conn, *args, **kwargs)))
        return result

    async def write_alone(
        self, name: str, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`write` while nobody else, on any server, does what goes by this name."""
        result: T = await self._queued(Write(lambda conn: function(conn, *args, **kwargs), alone=name))
        return result

    async def write_in_queue(
        self, queue: str, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`write` while nobody else, on any server, writes in the queue of this deployment."""
        result: T = await self._queued(Write(lambda conn: function(conn, *args, **kwargs), (queue,)))
        return result

    async def write_in_queues(self, queues: Sequence[str], function: Callable[[Connection], T]) -> T:
        """`write_in_queue` for several of them."""
        result: T = await self._queued(Write(function, queues))
        return result

    async def write_briefly(
        self, queue: str, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`write_in_queue` for what takes some statements and not many: it may run on the event loop itself."""
        result: T = await self._queued(Write(lambda conn: function(conn, *args, **kwargs), (queue,)), at_once=True)
        return result

    async def write_handing_over(
        self,
        queue: str,
        hand_over: Callable[[T], None],
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`write_briefly` that calls `hand_over(result)` on the event loop as soon as there is a result.

        That can be a moment before it is committed and on disk, so it is for what is worth nothing should the
        transaction come to nothing, as where the power fails in that moment or the disk is full. A transaction that is
        tried again hands over again. This call itself returns only when all is on disk, like `write`.
        """
        write = Write(lambda conn: function(conn, *args, **kwargs), (queue,), hand_over)
        result: T = await self._queued(write, at_once=True)
        return result

    async def _queued(self, write: Write, *, at_once: bool = False) -> Any:
        if self._closing:
            raise StoreUnavailable("The server is shutting down.")
        self._outage.check()
        if at_once:
            self._writer.put_at_once(write)
        else:
            self._writer.put(write)
        return await write.future

    async def read(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a store function on a snapshot that holds every acknowledged write.

        Raises:
            StoreUnavailable: The database cannot be read now.
        """
        self._outage.check()
        result = await asyncio.get_running_loop().run_in_executor(
            self._readers, lambda: self.read_now(function, *args, **kwargs)
        )
        await self._on_disk()
        return result

    async def read_briefly(
        self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`read` for what looks up a row or two: in an embedded database that takes less time than changing threads."""
        if self.is_shared:
            return await self.read(function, *args, **kwargs)
        self._outage.check()
        await asyncio.sleep(0)  # who asks again and again lets others have their turn
        result = self._look_up(lambda conn: function(conn, *args, **kwargs))
        await self._on_disk()
        return result

    def _look_up(self, operation: Callable[[Connection], T]) -> T:
        """On a connection that stays open: what it takes to get one costs as much as the look itself."""
        try:
            if self._lookups is None:
                self._lookups = self._engines.engine.connect()
            return operation(self._lookups)
        except Exception as error:
            if self._lookups is not None:
                self._lookups.invalidate()
                self._lookups.close()
                self._lookups = None
            self._refuse(error)
            raise

    async def _on_disk(self) -> None:
        """Wait until all that could be read by now is on disk: what somebody has seen stays."""
        if not self._writer.is_on_disk:
            barrier = Write(lambda _: None)
            self._writer.put_barrier(barrier)
            await barrier.future

    def read_now(self, function: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`read` for callers that have no event loop."""
        self._outage.check()
        return self._run(READ_SECONDS, lambda conn: function(conn, *args, **kwargs))

    async def aside(
        self,
        seconds: float,
        function: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a store function of one statement by itself, behind nobody, within so many seconds.

        Raises:
            StoreUnavailable: It took too long, or the database is away; it may have been done all the same.
        """
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(
                    self._aside, lambda: self._run(seconds, lambda conn: function(conn, *args, **kwargs))
                )
        except TimeoutError:
            raise StoreUnavailable(f"The database did not answer within {seconds:g} s.") from None

    def _run(self, seconds: float, operation: Callable[[Connection], T]) -> T:
        """What does no harm when it is done twice; where a kept connection has died, it is done again with another."""
        try:
            try:
                return self._run_once(seconds, operation)
            except _Broken:
                return self._run_once(seconds, operation)
        except Exception as error:
            self._refuse(error.error if isinstance(error, _Broken) else error)
            raise

    def _run_once(self, seconds: float, operation: Callable[[Connection], T]) -> T:
        with self._engines.engine.connect() as conn:
            try:
                with self._engines.bound(conn, seconds):
                    result = operation(conn)
            except Exception as error:
                if self._engines.is_away(error):
                    conn.invalidate()
                    self._engines.lost()
                    raise _Broken(error) from error
                raise
        self._outage.over()
        return result

    def _reach(self) -> None:
        self._run_once(READ_SECONDS, lambda conn: conn.exec_driver_sql("SELECT 1"))

    def _refuse(self, error: Exception) -> None:
        """Tell the caller what the database's error means; return where it is none of the database's."""
        if self._engines.is_refused_value(error):
            raise refused_value(error) from error
        if self._engines.is_database(error):
            answer = unavailable(error)
            if self._engines.is_away(error):
                self._outage.failed(answer)
            raise answer from error

    def close(self) -> None:
        """Commit what is queued and end the threads."""
        self._closing = True
        self._outage.close()
        self._writer.close()
        self._readers.shutdown()
        self._aside.shutdown()
        if self._lookups is not None:
            self._lookups.close()
        self._engines.close()

    def _announced(self, topic: str) -> None:
        for listener in self._announcements.get(topic, ()):
            listener()


class _Broken(Exception):
    """The connection broke while it was used."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite database in a file."""
    return f"sqlite:///{path}"


def sqlite_file(url: str | None) -> Path | None:
    """The file of a SQLite database, wherever links to it lie; None where it is another, or in memory."""
    if url is None or not is_sqlite(url):
        return None
    database = make_url(url).database
    return Path(database).resolve() if database and database != ":memory:" else None
