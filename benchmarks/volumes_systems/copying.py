"""`cp -r` on the same disk, followed by a sync: no network, no server, no checksum."""

import shutil
from pathlib import Path

from volumes_measures.command import run, synced
from volumes_systems.base import Cost


class Copying:
    """See `Store`."""

    name = "cp -r"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "copying"

    def bring_up(self) -> None:
        """See `Store`."""
        self._folder.mkdir()

    def take_down(self) -> None:
        """See `Store`."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def upload(self, folder: Path) -> Cost:
        """See `Store`."""
        return self._copy(folder, self._folder / "data")

    def download(self, folder: Path) -> Cost:
        """See `Store`."""
        return self._copy(self._folder / "data", folder)

    def _copy(self, source: Path, target: Path) -> Cost:
        # A file system that shares blocks between files would copy nothing at all.
        seconds, client_mib = run(["cp", "--recursive", "--reflink=never", source, target], self._folder)
        return Cost(seconds + synced(), client_mib, 0.0)
