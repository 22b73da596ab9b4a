"""The data directory: who may use it, and what lies in it.

machineshop.db        the store, where it is SQLite
admin-key             the admin key that the platform made, mode 0600
lock                  held while a server runs
server.json           the running server's address and process id
runtime/              replicas, their logs and environments
tls/                  the server's certificate, and what its clients trust

and in the storage directory, which is the same unless servers on one database share another:

blobs/ uploads/       bytes of images, bundles and files
storage-id            which database these bytes belong to
tls/authority.pem     who signs the servers' certificates
secrets-key           the keys that secrets are sealed with, mode 0600
"""

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from machineshop.errors import MachineshopError
from machineshop.ids import new_id

STORED_PARTS = ("blobs", "uploads")


class DataDirUnusable(MachineshopError):
    """The data directory {path} cannot be used: {cause}. Mend it (permissions, room), or choose another --data-dir."""


class DataDirInUse(MachineshopError):
    """Another machineshop (process {pid}) is using the data directory {path}. Stop it, or choose another --data-dir."""


class DatabaseInUse(MachineshopError):
    """Another machineshop (process {pid}) is using the database {path}. Stop it, or share a Postgres instead."""


class StorageUnusable(MachineshopError):
    """The storage directory {path} cannot be used: {cause}. Choose another with --storage-dir, or mend it."""


class StorageElsewhere(MachineshopError):
    """The files of this database are kept elsewhere than in {where}: {mend}"""

    def __init__(self, where: str, storage_id: str) -> None:
        mend = (
            "name the storage that the other servers on it use with --storage-dir or --storage-url (by default it is "
            f"the data directory of the first). To go on without those files, write {storage_id} into "
            f"{where}/storage-id."
        )
        super().__init__(where=where, mend=mend)


class DataDir:
    """An opened data directory, locked for this process until `close`.

    Args:
        path: Where it is.
        storage: Where bytes are kept, if not in it too; several servers may share that.
    """

    def __init__(self, path: Path, storage: Path | None = None) -> None:
        self.path = path.absolute()
        self.storage = (storage or path).absolute()
        self._locks: list[IO[str]] = []

    @property
    def runtime(self) -> Path:
        """Where the runtime has its own."""
        return self.path / "runtime"

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
            StorageUnusable: The storage directory cannot be made or written.
        """
        try:
            self.make_private()
            (self.path / "runtime").mkdir(exist_ok=True, mode=0o700)
            self._lock(self.path / "lock", self.path)
            self._open_storage()
        except OSError as error:
            raise DataDirUnusable(path=self.path, cause=error.strerror or str(error)) from error
        except BaseException:
            self.close()
            raise

    def lock_database(self, path: Path) -> None:
        """Keep other servers, with other data directories, from a database in a file.

        Raises:
            DataDirUnusable: It cannot be made.
            DatabaseInUse: Another server uses it.
        """
        try:
            self._lock(path.with_name(f"{path.name}.lock"), path)
        except DataDirInUse as error:
            raise DatabaseInUse(path=path, pid=error.facts["pid"]) from None
        except OSError as error:
            raise DataDirUnusable(path=path, cause=error.strerror or str(error)) from error

    def close(self) -> None:
        """Let the directory go."""
        for lock in self._locks:
            lock.close()

    def _lock(self, file: Path, what: Path) -> None:
        """Hold a lock until `close`, in a file that says who has it."""
        lock = file.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            pid = lock.read().strip() or "unknown"
            lock.close()
            raise DataDirInUse(path=what, pid=pid) from None
        with contextlib.suppress(OSError):  # on a full disk the next one is not told who we are
            lock.truncate(0)
            os.write(lock.fileno(), str(os.getpid()).encode())
        self._locks.append(lock)

    def storage_id(self) -> str:
        """What tells this storage directory from others; made when it is first asked for.

        Raises:
            StorageUnusable: It cannot be read or written.
        """
        path = self.storage / "storage-id"
        try:
            if not path.exists():
                # Whole, or not at all, and the first one stays: another server may be doing the same.
                with tempfile.NamedTemporaryFile("w", dir=self.storage, prefix=".storage-id-") as file:
                    file.write(new_id() + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                    os.link(file.name, path)
        except FileExistsError:
            pass
        except OSError as error:
            raise StorageUnusable(path=self.storage, cause=error.strerror or str(error)) from error
        return self._read_storage_id(path)

    def _read_storage_id(self, path: Path) -> str:
        try:
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StorageUnusable(path=self.storage, cause=getattr(error, "strerror", None) or str(error)) from error

    def _open_storage(self) -> None:
        try:
            self.storage.mkdir(parents=True, exist_ok=True, mode=0o700)
            for part in STORED_PARTS:
                (self.storage / part).mkdir(exist_ok=True, mode=0o700)
                with tempfile.TemporaryFile(dir=self.storage / part):
                    pass
        except OSError as error:
            unusable = DataDirUnusable if self.storage == self.path else StorageUnusable
            raise unusable(path=self.storage, cause=error.strerror or str(error)) from error

    @property
    def admin_key(self) -> Path:
        """The file of the admin key."""
        return self.path / "admin-key"

    @property
    def secrets_key(self) -> Path:
        """The file of the keys that secrets are sealed with: servers on one database share it."""
        return self.storage / "secrets-key"

    @property
    def database(self) -> Path:
        """The file of the embedded store."""
        return self.path / "machineshop.db"
