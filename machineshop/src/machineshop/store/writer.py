"""The writer: one thread, one connection, and many callers' work in each transaction (group commit).

Writes that arrive while a commit is under way form the next transaction together. Each has its own savepoint, so one
that fails takes back only its own work, and none is acknowledged before the transaction is on disk.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from machineshop.errors import CommitUnknown, StoreUnavailable
from machineshop.store import announcements
from machineshop.store.engines import Engines
from machineshop.store.failures import first_line, refused_value, unavailable
from machineshop.store.outage import Outage
from machineshop.store.wal import (
    BUSY_TIMEOUT_SECONDS,
    Checkpointer,
    LogLost,
    LogNotOnDisk,
    WriteAheadLog,
    is_disk_error,
)
from machineshop.store.write import Write, on_loops

log = logging.getLogger(__name__)

# More callers than this in one transaction gain little and make the first of them wait for the last.
GROUP_LIMIT = 200
# Longer than the waits that the database itself bounds (`engines.SESSION_LIMITS`) come to in one transaction.
TRANSACTION_SECONDS = 20.0
# Two servers that write the same rows in different orders: one goes first, and the other begins anew.
DEADLOCK_TRIES = 3
EXIT_LOG_LOST = 74  # EX_IOERR
DEADLOCK_PAUSE_SECONDS = 0.02


class Writer:
    """The thread.

    Args:
        engines: The database.
        outage: Told when it goes away and when it comes back.
        committed: Called on a caller's event loop with the topics that a committed transaction has announced.
    """

    def __init__(self, engines: Engines, outage: Outage, committed: Callable[[str], None]) -> None:
        self._engines = engines
        self._outage = outage
        self._committed = committed
        self._writes: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._connection: Connection | None = None
        self._driver: Any = None  # the connection's own
        # How many transactions others could see before they were on disk, and how many of them are there now.
        self._committed_at_once = self._synced = 0
        # Held by whoever uses the connection.
        self._turn = threading.Lock()
        # Nobody takes what is put there any more.
        self._ended = False
        self._log = engines.log
        self._checkpointer = None if engines.log is None else Checkpointer(engines.engine, engines.log)

    def start(self) -> None:
        """Begin to take writes."""
        self._thread.start()
        if self._checkpointer is not None:
            self._checkpointer.start()

    def put(self, write: Write) -> None:
        """Take one more."""
        self._writes.put(write)
        if self._ended:
            self._refuse_late()

    def put_at_once(self, write: Write) -> None:
        """Commit a write on the caller's own thread, where nothing is in its way; the writer's puts it on disk.

        Transactions go on while the log of those before them is put on disk, and nobody changes threads for them. That
        blocks the event loop for some statements, and never for a disk or another process.
        """
        if self._log is not None and not self._log.in_doubt and self._turn.acquire(blocking=False):
            try:
                self._commit_at_once(write)
            finally:
                self._turn.release()
        if write.committed and write.handed_over:
            # First the loop brings it to whoever waits for it: the writer's thread would take Python's lock from it.
            write.loop.call_soon(self.put, write)
        else:
            self.put(write)

    @property
    def is_on_disk(self) -> bool:
        """Whether all is that readers can see; to be asked on the event loop."""
        return self._committed_at_once == self._synced

    def put_barrier(self, write: Write) -> None:
        """Take one that does nothing, and is answered once all is on disk that is committed by now."""
        write.committed = self._committed_at_once
        self.put(write)

    def _commit_at_once(self, write: Write) -> None:
        if self._ended:
            return
        try:
            topics = self._transact([write], waits=False, before_commit=write.early)
        except Exception:  # noqa: BLE001 - another process writes, or the disk is full: the thread tries, and tells
            write.again()
        else:
            self._committed_at_once += 1
            write.committed = self._committed_at_once
            for topic in topics:
                self._committed(topic)

    def close(self) -> None:
        """Commit what was taken, and end."""
        if self._thread.is_alive():
            self._writes.put(None)
            self._thread.join(timeout=BUSY_TIMEOUT_SECONDS + 5)
        if self._checkpointer is not None:
            self._checkpointer.close()
        # The event loop may be committing; a thread that did not end in time has the turn, and keeps it.
        has_turn = self._turn.acquire(timeout=1)
        self._ended = True
        if has_turn and self._log is not None and self._log.in_doubt:
            with contextlib.suppress(LogNotOnDisk):  # what was acknowledged is there
                self._put_right(self._log)
        self._drop_connection()
        if has_turn:
            self._turn.release()
        self._refuse_late()

    def _refuse_late(self) -> None:
        """Answer what came when the thread had ended."""
        late: list[Write] = []
        with contextlib.suppress(queue.Empty):
            while True:
                if (write := self._writes.get_nowait()) is not None:
                    late.append(write)
        _refuse(late, StoreUnavailable("The server is shutting down; look whether this was done."))
        on_loops(late, Write.resolve)

    def _run(self) -> None:
        closing = False
        while not closing:
            group, closing = self._next_group()
            if group:
                with self._turn:
                    topics = self._commit([write for write in group if not write.committed])
                    seen = self._committed_at_once
                self._sync(group, seen)
                on_loops(group, Write.resolve)
                for topic in topics:
                    with contextlib.suppress(RuntimeError):  # the loop has ended
                        group[0].loop.call_soon_threadsafe(self._committed, topic)

    def _next_group(self) -> tuple[list[Write], bool]:
        group: list[Write] = []
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

    def _sync(self, group: list[Write], seen: int) -> None:
        """Put on disk what was committed at once by now: these writes may be it, or have found it."""
        if seen != self._synced and self._log is not None:
            try:
                self._sync_log(self._log)
            except LogNotOnDisk as error:
                with self._turn:
                    self._fail(group, error, away=False)
            else:
                self._synced = seen

    def _sync_log(self, write_ahead_log: WriteAheadLog) -> None:
        if write_ahead_log.in_doubt:
            with self._turn:
                self._put_right(write_ahead_log)
        else:
            write_ahead_log.sync()

    def _put_right(self, write_ahead_log: WriteAheadLog) -> None:
        """Have the log on disk after a sync that failed, or end the process at once, as where it was killed.

        Raises:
            LogNotOnDisk: That failed too.
        """
        try:
            _, driver = self._begun(set(), waits=True)  # no other process writes either
        except Exception as error:
            raise LogNotOnDisk(f"The disk has refused to keep a job, and is not asked yet ({error}).") from error
        try:
            write_ahead_log.put_right()
        except LogLost as error:
            # In good order SQLite would bring the log into the database file. What was acknowledged is on disk, and
            # the next start finds it there.
            log.critical("store.log_lost error=%s The server ends, and is to be started again.", error)
            logging.shutdown()
            os._exit(EXIT_LOG_LOST)
        finally:
            driver.execute("ROLLBACK")

    def _commit(self, group: list[Write]) -> set[str]:
        """One transaction for all of them, on disk when this returns; the topics that it has announced."""
        if not group:
            return set()
        try:
            self._outage.check()
            if self._log is not None and self._log.in_doubt:
                self._put_right(self._log)
            topics = self._transact_to_disk(group)
        except (LogNotOnDisk, CommitUnknown) as error:
            self._fail(group, error, away=isinstance(error, CommitUnknown))
        except StoreUnavailable as error:  # nothing was tried
            _refuse(group, error)
        except Exception as error:  # noqa: BLE001 - whatever broke the transaction is every caller's answer
            if self._log is not None and is_disk_error(error):
                self._log.in_doubt = True
            self._fail(group, unavailable(error), away=self._engines.is_away(error))
        else:
            self._outage.over()
            return topics
        return set()

    def _fail(self, group: list[Write], error: StoreUnavailable, *, away: bool) -> None:
        if self._log is None or not self._log.in_doubt:  # the last one to close would bring the log into the file
            self._drop_connection()
        news = True
        if away:
            self._engines.lost()
            news = self._outage.failed(error)
        if news or isinstance(error, CommitUnknown):  # while the database is away, one line says so
            log.error("store.commit_failed writes=%d error=%s", len(group), error.message)
        _refuse(group, error)

    def _transact_to_disk(self, group: list[Write]) -> set[str]:
        write_ahead_log = self._log
        if write_ahead_log is not None:
            if not all(write.hand_over for write in group):
                with write_ahead_log.synced(self._connected()):
                    return self._transact(group)
            self._committed_at_once += 1  # before it is: readers see it as soon as it is committed
            topics = self._transact(group)
            on_loops(group, Write.early)
            write_ahead_log.sync()
            self._synced = self._committed_at_once
            return topics
        for _ in range(DEADLOCK_TRIES - 1):
            try:
                return self._transact(group)
            except Exception as error:
                if not self._engines.is_deadlock(error):
                    raise
                for write in group:
                    write.again()
                time.sleep(DEADLOCK_PAUSE_SECONDS)  # the other one goes first
        return self._transact(group)

    def _transact(
        self, group: list[Write], *, waits: bool = True, before_commit: Callable[[], None] | None = None
    ) -> set[str]:
        queues: set[str] = set()
        locks: set[str] = set()
        if not self._engines.is_sqlite:  # which has one writer anyway, and nobody else to tell
            queues = {queue for write in group for queue in write.queues}
            locks = queues | {write.alone for write in group if write.alone is not None}
        conn, driver = self._begun(locks, waits=waits)
        with self._engines.bound(conn, TRANSACTION_SECONDS):
            try:
                if not self._run_all(conn, driver, group):
                    announcements.taken(conn)  # of what came to nothing
                    return set()
                topics = announcements.taken(conn)
                if before_commit is not None:
                    before_commit()
                self._end(driver, queues.union(map(announcements.to_others, topics)))
                if self._checkpointer is not None:
                    self._checkpointer.count()
            except BaseException:
                with contextlib.suppress(Exception):  # some errors have rolled back already
                    driver.execute("ROLLBACK")
                with contextlib.suppress(Exception):
                    announcements.taken(conn)
                raise
        return topics

    def _begun(self, locks: set[str], *, waits: bool) -> tuple[Connection, Any]:
        """The writer's connection and its driver's, in a transaction; one that died while it was idle is replaced."""
        kept = self._connection is not None
        conn = self._connected()
        try:
            self._engines.begin(self._driver, locks, TRANSACTION_SECONDS, waits=waits)
        except Exception as error:
            if not kept or not self._engines.is_away(error):
                raise
            self._drop_connection()
            self._engines.lost()
            conn = self._connected()
            self._engines.begin(self._driver, locks, TRANSACTION_SECONDS, waits=waits)
        return conn, self._driver

    def _connected(self) -> Connection:
        """The writer's one connection, kept open; its transactions are begun and ended here alone."""
        if self._connection is None:
            self._connection = self._engines.engine.connect()
            self._driver = self._connection.connection.dbapi_connection
            self._engines.prepare_writer(self._driver)
        return self._connection

    def _run_all(self, conn: Connection, driver: Any, group: list[Write]) -> bool:
        """Everybody's work; whether there is anything to commit.

        What one raises is its own answer and spoils nobody else's: it has its part of the transaction to itself.
        """
        if len(group) == 1:
            try:
                group[0].run(conn)
            except Exception as error:  # noqa: BLE001 - raised again where it is nobody's own
                group[0].error = self._own_error(error)
                driver.execute("ROLLBACK")
                return False
            return True
        for number, write in enumerate(group):
            self._engines.separate(driver, first=number == 0)
            try:
                write.run(conn)
            except Exception as error:  # noqa: BLE001 - raised again where it is nobody's own
                write.error = self._own_error(error)
                self._engines.take_back(driver)
        return True

    def _own_error(self, error: Exception) -> Exception:
        """What one caller is told; raised again where it is not the caller's own, and the transaction is in doubt."""
        if not self._engines.is_callers_own(error):
            raise error
        return refused_value(error) if self._engines.is_refused_value(error) else error

    def _end(self, driver: Any, topics: set[str]) -> None:
        try:
            self._engines.commit(driver, topics)
        except Exception as error:
            if not self._engines.is_away(error):
                raise
            raise CommitUnknown(
                f"The connection to the database broke during the commit ({first_line(error)}). It is not known "
                "whether this was done: look, before you do it again."
            ) from error

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.invalidate()
                self._connection.close()
            self._connection = None
        if self._log is not None:
            self._log.close()  # the next connection may make another file of that name


def _refuse(group: list[Write], error: StoreUnavailable) -> None:
    for write in group:
        write.error = write.error or error
