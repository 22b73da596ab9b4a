"""SQLite's write-ahead log, put on disk by ourselves.

With synchronous=FULL a commit returns when the log is on disk, and nobody goes on before that. A submit that hands its
job to a waiting worker holds up others for longer than need be: nothing was promised to anybody yet. So the writer's
connection commits with synchronous=NORMAL, and then we do what FULL would have done, before the submit is answered.
NORMAL leaves out nothing else: before a checkpoint, after it, and where the log begins anew, SQLite syncs in either
mode. What the writer's thread commits for many callers at once goes with FULL (`synced`), as nobody is to see that
before it is on disk.

**After a sync that failed the log is in doubt.** The kernel reports such a failure once and may take the pages for
written from then on, so the next sync would succeed without having done anything, and what is committed behind such a
gap is lost with it when the power fails. So nothing is acknowledged, nor brought into the database file, before all of
the log has been written once more and is on disk (`put_right`).
"""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from machineshop.errors import StoreUnavailable
from machineshop.store.wal_frames import INDEX_BYTES, FramesLost, pieces

# How long another process (a CLI command beside the server) may hold the write lock before we give up.
BUSY_TIMEOUT_SECONDS = 10
# After so many transactions the log is brought into the database file: about as often as SQLite would by itself.
CHECKPOINT_TRANSACTIONS = 64

log = logging.getLogger(__name__)


class LogNotOnDisk(StoreUnavailable):
    """{message}"""


def is_disk_error(error: BaseException) -> bool:
    """Whether SQLite could not read or write: a sync may be what failed."""
    cause = getattr(error, "orig", error)
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR


class LogLost(Exception):
    """The disk has refused to keep the write-ahead log {path}, and it is not what was committed any more."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(self.__doc__).format(path=path))


class WriteAheadLog:
    """The log of one database file. It exists as long as a connection is open, which the writer's is."""

    def __init__(self, database: Path) -> None:
        # SQLite puts it beside the file itself, and not beside a link to it.
        database = database.resolve()
        self._path = database.with_name(database.name + "-wal")
        self._index = database.with_name(database.name + "-shm")
        self._fd: int | None = None
        self.in_doubt = False
        """A sync has failed, and nobody knows what of it is on disk."""

    @contextmanager
    def synced(self, conn: Connection) -> Iterator[None]:
        """Commits in this block return when they are on disk; those outside of it before, and `sync` must follow."""
        driver: Any = conn.connection.dbapi_connection
        driver.execute("PRAGMA synchronous=FULL")
        try:
            yield
        finally:
            driver.execute("PRAGMA synchronous=NORMAL")

    def sync(self) -> None:
        """Put on disk what was committed so far.

        Raises:
            LogNotOnDisk: The disk refused, and the log is in doubt.
        """
        # Closing it would be safe as well: SQLite's locks are on its other files.
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDONLY)
            os.fdatasync(self._fd)
        except OSError as error:
            self.in_doubt = True
            raise _refused(error) from error

    def put_right(self) -> None:
        """Write the log once more as it is, put that on disk, and doubt it no longer. Nobody may write meanwhile.

        Raises:
            LogNotOnDisk: The disk still refuses.
            LogLost: The kernel has dropped what was not on disk: what is committed cannot be read any more.
        """
        try:
            with self._index.open("rb") as index, self._path.open("r+b", buffering=0) as file:
                fd = file.fileno()
                try:
                    for offset, piece in pieces(lambda length, at: os.pread(fd, length, at), index.read(INDEX_BYTES)):
                        os.pwrite(fd, piece, offset)
                except FramesLost:
                    raise LogLost(self._path) from None
                os.fdatasync(fd)
        except OSError as error:
            raise _refused(error) from error
        self.in_doubt = False
        log.warning("store.log_put_right path=%s", self._path)

    def close(self) -> None:
        """Let the file go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _refused(error: OSError) -> LogNotOnDisk:
    return LogNotOnDisk(f"The disk refused to keep the job ({error.strerror}); look whether it is there.")


class Checkpointer:
    """Brings the log into the database file, on a thread and a connection of its own: no commit waits for that.

    Args:
        engine: The database.
        write_ahead_log: Its log; one in doubt is let be.
    """

    def __init__(self, engine: Engine, write_ahead_log: WriteAheadLog) -> None:
        self._engine = engine
        self._log = write_ahead_log
        self._transactions = 0
        self._due = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="store-checkpointer", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def count(self) -> None:
        """One more transaction has been committed."""
        self._transactions += 1
        if self._transactions >= CHECKPOINT_TRANSACTIONS:
            self._transactions = 0
            self._due.set()

    def close(self) -> None:
        """End; what is left in the log stays there, and is read from it."""
        self._closing = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join(BUSY_TIMEOUT_SECONDS)

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._closing:
                return
            if self._log.in_doubt:  # of a page in the file its frame must be on disk
                continue
            try:
                with self._engine.connect() as conn:
                    conn.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
            except Exception as error:  # noqa: BLE001 - a full disk, for one: the log is complete, and it is tried again
                log.warning("store.checkpoint_failed error=%s", error)
                if is_disk_error(error):
                    self._log.in_doubt = True
