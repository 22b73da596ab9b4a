"""What a version of a volume is on this machine: a tree of plain files that nobody may write to.

Place in the flow: `cache.py` makes one and hands its folder to an engine. On disk, below the cache's folder:

    trees/<project>.<volume>.<version>/
        files/          what a replica sees: folders of mode 0555, files of mode 0444
        ready.json      written last: a tree without it was not completed, and is made anew
"""

import os
import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from machineshop.errors import MachineshopError
from machineshop.runtime.base import VolumeFile

LONGEST_NAME_BYTES = 255
LONGEST_PATH_BYTES = 3000
"""Of a file within a volume: with the folder of the cache before it, it must stay below the system's 4096."""
FILE_MODE, FOLDER_MODE = 0o444, 0o555
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.(\d+)")


class TreeKey(NamedTuple):
    """Which version of which volume."""

    project_id: str
    volume_id: str
    version: int


class UnsafePath(MachineshopError):
    """It has a file {name!r}, which cannot be made here: {why}."""


class BrokenOff(MachineshopError):
    """The server ends; what is left of a volume here is removed after its next start."""


class Made(msgspec.Struct, frozen=True):
    """What is written down of a tree that is complete."""

    copied_bytes: int
    """Of its files, those that are not shared with the platform's storage."""


_MADE = msgspec.json.Decoder(Made)


class Trees:
    """The trees on this machine. All of it works on the disk at once, so it belongs into a thread.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stopping = threading.Event()
        """Breaks off what removes a tree, so that a server that ends does not wait for it."""

    def files(self, key: TreeKey) -> Path:
        """What a replica sees."""
        return self._of(key) / "files"

    def made(self, key: TreeKey) -> Made | None:
        """What is known of it; None: it is not there, or not complete."""
        try:
            return _MADE.decode(self._marker(key).read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def use(self, key: TreeKey) -> bool:
        """Whether it is complete; one that is has been used now."""
        if self.made(key) is None:
            return False
        os.utime(self._marker(key))
        return True

    def begin(self, key: TreeKey, files: Iterable[VolumeFile]) -> None:
        """Make its folders, in the place of what an interrupted making has left.

        Raises:
            UnsafePath: One of these files cannot be made, or would lie outside.
        """
        folders = folders_of(files)
        self.remove(key)
        root = self.files(key)
        root.mkdir(parents=True)
        for folder in folders:
            (root / folder).mkdir()

    def finish(self, key: TreeKey, copied_bytes: int) -> None:
        """Close its folders, and write down that it is complete."""
        for folder, _, _ in os.walk(self.files(key), topdown=False):
            Path(folder).chmod(FOLDER_MODE)
        written = self._marker(key).with_suffix(".new")
        written.write_bytes(msgspec.json.encode(Made(copied_bytes)))
        written.replace(self._marker(key))

    def remove(self, key: TreeKey) -> None:
        """Remove a tree, complete or not; what is left of one where that is broken off is not complete.

        Raises:
            BrokenOff: We are told to stop.
        """
        self._marker(key).unlink(missing_ok=True)
        for folder, _, _ in os.walk(self.files(key)):
            self._go_on()
            Path(folder).chmod(0o700)
        for folder, _, names in os.walk(self._of(key), topdown=False):
            for name in names:
                self._go_on()
                Path(folder, name).unlink()
            Path(folder).rmdir()

    def known(self) -> list[TreeKey]:
        """All of them, the least recently used first; before these, those that are not complete."""
        used_at: dict[TreeKey, float] = {}
        for folder in self._folder.iterdir():
            if found := _NAME.fullmatch(folder.name):
                key = TreeKey(found[1], found[2], int(found[3]))
                used_at[key] = 0.0 if self.made(key) is None else self._marker(key).stat().st_mtime
        return sorted(used_at, key=lambda key: used_at[key])

    def _go_on(self) -> None:
        if self.stopping.is_set():
            raise BrokenOff

    def _marker(self, key: TreeKey) -> Path:
        return self._of(key) / "ready.json"

    def _of(self, key: TreeKey) -> Path:
        name = f"{key.project_id}.{key.volume_id}.{key.version}"
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name} is no name of a tree")
        return self._folder / name


def folders_of(files: Iterable[VolumeFile]) -> list[str]:
    """The folders that these files lie in, each after the one that it lies in.

    Raises:
        UnsafePath: One of the files cannot be made, or would lie outside.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for file in files:
        _check(file)
        if file.path in seen:
            raise UnsafePath(name=file.path, why="it is there twice")
        seen.add(file.path)
        folder = file.path.rpartition("/")[0]
        while folder and folder not in folders:  # those above a known one are known
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    for path in sorted(folders & seen):
        raise UnsafePath(name=path, why="it is a folder of others, too")
    return sorted(folders)


def _check(file: VolumeFile) -> None:
    names = file.path.split("/")
    if any(name in ("", ".", "..") for name in names):
        raise UnsafePath(name=file.path, why="it is no path within a folder")
    if "\0" in file.path:
        raise UnsafePath(name=file.path, why="it has a NUL character")
    try:
        longest = max(len(name.encode()) for name in names)
    except UnicodeEncodeError:
        raise UnsafePath(name=file.path, why="it is not Unicode") from None
    if longest > LONGEST_NAME_BYTES or len(file.path.encode()) > LONGEST_PATH_BYTES:
        raise UnsafePath(name=f"{file.path[:100]}...", why="its name is too long")
    if not _DIGEST.fullmatch(file.digest):
        raise UnsafePath(name=file.path, why="its digest is none")
