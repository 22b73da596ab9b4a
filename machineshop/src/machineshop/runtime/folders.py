"""What an engine keeps of its replicas on disk: a folder for each, with its record and its log.

Place in the flow: the process and the docker engine save records here, and find them when the server starts again.
"""

import logging
import shutil
from pathlib import Path

import msgspec

from machineshop.errors import RuntimeUnavailable
from machineshop.runtime.record import RECORD, Record
from machineshop.runtime.replica_log import FileLog

logger = logging.getLogger(__name__)


class ReplicaFolders:
    """The folders of one engine's replicas, which nobody but the server's user can look into.

    Args:
        path: Where they are.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> None:
        """Make sure that they can be used.

        Raises:
            RuntimeUnavailable: They cannot.
        """
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            self._path.chmod(0o700)
        except OSError as error:
            raise RuntimeUnavailable(message=f"The folder {self._path} cannot be used: {error}.") from error

    def load(self) -> list[Record]:
        """The records of earlier."""
        records = [_load(folder) for folder in sorted(self._path.iterdir())]
        return [record for record in records if record is not None]

    def of(self, replica_id: str) -> Path:
        """One replica's folder, which is there afterwards."""
        folder = self._path / replica_id
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def save(self, record: Record) -> None:
        """Write the record down, without the variables of its environment, which hold secrets."""
        folder = self.of(record.id)
        spec = msgspec.structs.replace(record.spec, environment={})
        written = folder / "replica.json.new"
        written.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, spec=spec)))
        written.replace(folder / "replica.json")

    def remove(self, replica_id: str) -> None:
        """Remove a replica's folder."""
        shutil.rmtree(self._path / replica_id, ignore_errors=True)

    def log(self, replica_id: str) -> FileLog:
        """A reader of the replica's log."""
        return FileLog(self._path / replica_id, replica_id)


def _load(folder: Path) -> Record | None:
    try:
        return RECORD.decode((folder / "replica.json").read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        logger.warning("folder of no known replica left alone: folder=%s error=%s", folder, error)
        return None
