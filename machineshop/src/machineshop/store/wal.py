"""SQLite's write-ahead log, put on disk by ourselves.

With synchronous=FULL a commit returns when the log is on disk, and nobody can see it earlier. For a claim handed to a
waiting worker that is later than need be: nothing was promised to anybody yet. So such a transaction is committed with
synchronous=NORMAL, the worker gets its job, and then we do what FULL would have done, before the submit is answered.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from machineshop.errors import StoreUnavailable

# How long another process (a CLI command beside the server) may hold the write lock before we give up.
BUSY_TIMEOUT_SECONDS = 10
# SQLite's own: after so many pages the log is brought into the database file.
CHECKPOINT_PAGES = "1000"


class LogNotOnDisk(StoreUnavailable):
    """{message}"""


class WriteAheadLog:
    """The log of one database file. It exists as long as a connection is open, which the writer's is."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + "-wal")
        self._fd: int | None = None

    @contextmanager
    def synced_by_us(self, conn: Connection) -> Iterator[None]:
        """Commits in this block return before they are on disk; at its end they are.

        Raises:
            LogNotOnDisk: The disk refused.
        """
        with _set(conn, {"synchronous": ("NORMAL", "FULL")}):
            yield
        self.sync()

    @contextmanager
    def never_waiting(self, conn: Connection) -> Iterator[None]:
        """Transactions in this block wait for nothing: no disk, no other process, no checkpoint. `sync` must follow."""
        busy_milliseconds = str(BUSY_TIMEOUT_SECONDS * 1000)
        usual = {"synchronous": ("NORMAL", "FULL"), "busy_timeout": ("0", busy_milliseconds)}
        with _set(conn, {**usual, "wal_autocheckpoint": ("0", CHECKPOINT_PAGES)}):
            yield

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


@contextmanager
def _set(conn: Connection, pragmas: dict[str, tuple[str, str]]) -> Iterator[None]:
    """Settings of a connection for the time of a block: the value then, and the one afterwards."""
    driver: Any = conn.connection.driver_connection
    for name, (value, _) in pragmas.items():
        driver.execute(f"PRAGMA {name}={value}")
    try:
        yield
    finally:
        for name, (_, value) in pragmas.items():
            driver.execute(f"PRAGMA {name}={value}")
