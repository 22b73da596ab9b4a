"""SQLite's write-ahead log, put on disk by ourselves.

With synchronous=FULL a commit returns when the log is on disk, and nobody can see it earlier. For a claim handed to a
waiting worker that is later than need be: nothing was promised to anybody yet. So the writer's connection commits with
synchronous=NORMAL, the worker gets its job, and then we do what FULL would have done, before the submit is answered.
NORMAL leaves out nothing else: before a checkpoint, after it, and where the log begins anew, SQLite syncs in either
mode. What the writer's thread commits for many callers at once goes with FULL (`synced`), as nobody is to see that
before it is on disk.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from machineshop.errors import StoreUnavailable

# How long another process (a CLI command beside the server) may hold the write lock before we give up.
BUSY_TIMEOUT_SECONDS = 10
# After so many transactions the log is brought into the database file: about as often as SQLite would by itself.
CHECKPOINT_TRANSACTIONS = 64

log = logging.getLogger(__name__)


class LogNotOnDisk(StoreUnavailable):
    """{message}"""


class WriteAheadLog:
    """The log of one database file. It exists as long as a connection is open, which the writer's is."""

    def __init__(self, database: Path) -> None:
        # SQLite puts it beside the file itself, and not beside a link to it.
        database = database.resolve()
        self._path = database.with_name(database.name + "-wal")
        self._fd: int | None = None

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
            LogNotOnDisk: The disk refused.
        """
        # Closing it would be safe as well: SQLite's locks are on its other files.
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDONLY)
            os.fdatasync(self._fd)
        except OSError as error:
            raise LogNotOnDisk(
                f"The disk refused to keep the job ({error.strerror}); look whether it is there."
            ) from error

    def close(self) -> None:
        """Let the file go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Checkpointer:
    """Brings the log into the database file, on a thread and a connection of its own: no commit waits for that.

    Args:
        engine: The database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
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
            try:
                with self._engine.connect() as conn:
                    conn.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
            except Exception as error:  # noqa: BLE001 - a full disk, for one: the log is complete, and it is tried again
                log.warning("store.checkpoint_failed error=%s", error)
