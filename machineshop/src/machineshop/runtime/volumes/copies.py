"""Bytes of volumes that were copied to this machine: one file for each digest, which all trees share by hard links.

Place in the flow: `cache.py` admits what it has fetched and verified, and gives it its names in trees. A copy that no
tree has a name for any more is removed by `sweep`. Below the cache's folder:

    copies/<2 hex>/<64 hex>             named by the SHA-256 of the bytes
    copies/<2 hex>/<64 hex>.<inode>     an older one, which has as many names as a file may have
"""

import contextlib
import errno
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from machineshop.runtime.base import VolumeFile
from machineshop.runtime.volumes.trees import FILE_MODE


class Copies:
    """The copies on this machine. All of it works on the disk at once, so it belongs into a thread.

    Args:
        folder: Where they are, on the same file system as the trees.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        """Between a look at how many names a copy has and its end, nobody may give it another."""

    def link(self, files: Iterable[VolumeFile], tree: Path) -> list[VolumeFile]:
        """Give those files their names in a tree whose bytes are here; returns the others, whose bytes are to come.

        They are to come again where a file system bounds the names of one file, and the copy has that many.
        """
        missing = []
        for file in files:
            with self._lock:
                if not self._link(file.digest, tree / file.path):
                    missing.append(file)
        return missing

    def admit(self, fetched: Path, digest: str, target: Path) -> None:
        """Take in verified bytes, and give them their first name in a tree; `fetched` is gone afterwards."""
        copy = self._of(digest)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            if self._link(digest, target):  # another volume has brought the same meanwhile
                fetched.unlink()
                return
            fetched.chmod(FILE_MODE)
            target.hardlink_to(fetched)
            with contextlib.suppress(FileNotFoundError):
                # As many names as it may have: it stays under another one, taking its space as long as a tree has it.
                copy.replace(copy.with_suffix(f".{copy.stat().st_ino}"))
            fetched.replace(copy)

    def used_bytes(self) -> int:
        """How much space all of them take."""
        with self._lock:
            return sum(entry.stat().st_size for entry in self._entries())

    def sweep(self) -> None:
        """Remove those that are in no tree."""
        for entry in self._entries():
            with self._lock, contextlib.suppress(FileNotFoundError):  # another sweep has removed it
                if entry.stat().st_nlink == 1:
                    Path(entry.path).unlink()

    def _link(self, digest: str, target: Path) -> bool:
        """Give a copy one more name; False where there is none, or it has as many names as a file may have."""
        try:
            target.hardlink_to(self._of(digest))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EMLINK):
                raise
            return False
        return True

    def _of(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        if not self._folder.exists():
            return
        for fan in os.scandir(self._folder):
            with os.scandir(fan.path) as entries:
                yield from entries
