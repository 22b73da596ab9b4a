"""The data directory: who may use it, and what lies in it.

machineshop.db        the store, where it is SQLite
admin-key             the admin key that the platform made, mode 0600
lock                  held while a server runs
server.json           the running server's address and process id
blobs/ uploads/       bytes of images, bundles and files
runtime/              replicas, their logs and environments
"""

import fcntl
import os
from pathlib import Path
from typing import IO

from machineshop.errors import MachineshopError

PARTS = ("blobs", "uploads", "runtime")


class DataDirUnusable(MachineshopError):
    """The data directory {path} cannot be used: {cause}. Choose another with --data-dir, or mend its permissions."""


class DataDirInUse(MachineshopError):
    """Another machineshop (process {pid}) is using the data directory {path}. Stop it, or choose another --data-dir."""


class DataDir:
    """An opened data directory, locked for this process until `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: IO[str] | None = None

    def make_private(self) -> None:
        """Make the directory if need be, and close it to other users: it holds keys, variables and payloads.

        Raises:
            OSError: It cannot be made, or is not ours to close.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.path.stat().st_mode & 0o077:
            self.path.chmod(0o700)

    def open(self) -> None:
        """Make the directory if need be, and lock it.

        Raises:
            DataDirUnusable: It cannot be made or written.
            DataDirInUse: Another server holds it.
        """
        try:
            self.make_private()
            for part in PARTS:
                (self.path / part).mkdir(exist_ok=True, mode=0o700)
            self._lock = (self.path / "lock").open("a+")
        except OSError as error:
            raise DataDirUnusable(path=self.path, cause=error.strerror or str(error)) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            pid = self._lock.read().strip() or "unknown"
            self._lock.close()
            raise DataDirInUse(path=self.path, pid=pid) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def close(self) -> None:
        """Let the directory go."""
        if self._lock is not None:
            self._lock.close()

    @property
    def admin_key(self) -> Path:
        """The file of the admin key."""
        return self.path / "admin-key"

    @property
    def database(self) -> Path:
        """The file of the embedded store."""
        return self.path / "machineshop.db"
