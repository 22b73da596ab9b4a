"""The folder that a version's files come into. Nothing outside of it is read or written, whatever links lie in it.

Every step below it is made from the folder above that is open, and follows no link. A file is written under a name of
its own beside its place, and takes that once it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from jig.errors import VolumeError

CHUNK_BYTES = 256 * 1024
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # which keeps a pipe at this place from holding us up
NO_FILE = -1
PART_NAME = re.compile(r"\.jig-[0-9a-f]{24}\.part")


class Part:
    """A large file that is not whole yet; `kept_bytes` of it an interrupted run has written.

    Args:
        file: where its bytes are.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._hasher = hashlib.sha256()
        self.size_bytes = 0
        while chunk := file.read(CHUNK_BYTES):
            self._count(chunk)
        self.kept_bytes = self.size_bytes

    @property
    def sha256(self) -> str:
        """Of the bytes that are there."""
        return self._hasher.hexdigest()

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        left = memoryview(chunk)
        while left:
            left = left[self._file.write(left) :]
        self._count(chunk)

    def clear(self) -> None:
        """Begin anew."""
        self._file.seek(0)
        self._file.truncate()
        self._hasher = hashlib.sha256()
        self.size_bytes = self.kept_bytes = 0

    def _count(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        self.size_bytes += len(chunk)


class Folder:
    """A folder that is open, and that no other run of jig fills meanwhile.

    Args:
        place: where it is, for messages.
        opened: its descriptor.
    """

    def __init__(self, place: Path, opened: int) -> None:
        self.place = place
        self._opened = opened

    def size_of(self, name: str) -> int | None:
        """The size of what is at a file's place, -1 of what is none, as a link; None where nothing is.

        Raises:
            VolumeError: it is a folder, or nobody may look.
        """
        with self._explained("read", name), contextlib.suppress(FileNotFoundError), self._above(name) as (above, last):
            status = os.stat(last, dir_fd=above, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                raise VolumeError(f"{self.place / name} is a folder, and a file in the volume.", hint="Remove it.")
            return status.st_size if stat.S_ISREG(status.st_mode) else NO_FILE
        return None

    def read(self, name: str) -> Iterator[bytes]:
        """The bytes of a file that is there."""
        with (
            self._explained("read", name),
            self._above(name) as (above, last),
            FileIO(os.open(last, os.O_RDONLY | FILE_FLAGS, dir_fd=above)) as file,
        ):
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def put(self, name: str, content: bytes, *, replaces: bool) -> None:
        """Write a small file.

        Args:
            name: its path below the folder.
            content: its bytes.
            replaces: something is at its place, and goes.

        Raises:
            VolumeError: it cannot be written, or something has come to its place meanwhile.
        """
        with self._explained("write", name), self._above(name, make=True) as (above, last):
            part = part_name(last, content)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=above)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE_FLAGS
                with FileIO(os.open(part, flags, 0o666, dir_fd=above), "w") as file:
                    left = memoryview(content)
                    while left:
                        left = left[file.write(left) :]
                self._place(name, above, part, last, replaces=replaces)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=above)
                raise

    @contextmanager
    def part(self, name: str, sha256: str, *, replaces: bool) -> Iterator[Part]:
        """A large file that grows within this block, and takes its place at the end; after an error it stays a part.

        Args:
            name: its path below the folder.
            sha256: what it will have, which an interrupted run knew too.
            replaces: something is at its place, and goes.
        """
        with self._explained("write", name), self._above(name, make=True) as (above, last):
            part = part_name(last, sha256.encode())
            opened = os.open(part, os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o666, dir_fd=above)
            with FileIO(opened, "r+") as file:
                if not stat.S_ISREG(os.fstat(opened).st_mode):
                    raise VolumeError(f"{self.place / name}: {part} beside it is no file.", hint="Remove it.")
                yield Part(file)
            self._place(name, above, part, last, replaces=replaces)

    def sweep(self, names: Iterable[str]) -> None:
        """Remove what interrupted runs left beside these files, which are all of a version and are all there."""
        kept = set(names)
        for example in {name.rpartition("/")[0]: name for name in kept}.values():
            with contextlib.suppress(OSError), self._above(example) as (above, _):
                prefix = example[: example.rfind("/") + 1]
                for each in os.listdir(above):  # noqa: PTH208  a descriptor is no path
                    if PART_NAME.fullmatch(each) and prefix + each not in kept:
                        os.unlink(each, dir_fd=above)

    def _place(self, name: str, above: int, part: str, last: str, *, replaces: bool) -> None:
        if not replaces:
            with contextlib.suppress(FileNotFoundError):
                os.stat(last, dir_fd=above, follow_symlinks=False)
                raise VolumeError(
                    f"{self.place / name} was not there before, and is now.",
                    hint="Somebody else has written it, or the disk takes two names of the volume for one.",
                )
        os.rename(part, last, src_dir_fd=above, dst_dir_fd=above)

    @contextmanager
    def _above(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """The open folder that a file is in, and its name there."""
        *folders, last = name.split("/")
        above = os.dup(self._opened)
        try:
            for each in folders:
                below = open_folder(above, each, make=make)
                os.close(above)
                above = below
            yield above, last
        finally:
            os.close(above)

    @contextmanager
    def _explained(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = self.place / name
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise VolumeError(
                    f"{place} cannot be there: a link or a file is where its folder would be, or a link at its place.",
                    hint="jig goes through no link below the folder. Remove it, or choose another folder.",
                ) from error
            raise VolumeError(f"Cannot {verb} {place}: {error.strerror}.") from error


@contextmanager
def opened_folder(place: Path) -> Iterator[Folder]:
    """A folder to fill, made if need be; nobody else fills it within this block.

    Raises:
        VolumeError: it is none, cannot be made, or another run of jig fills it.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        opened = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileExistsError as error:
        raise VolumeError(f"{place} is no folder.", hint="Name another one, or remove it.") from error
    except OSError as error:
        raise VolumeError(f"Cannot open the folder {place}: {error.strerror}.") from error
    try:
        lock(opened, place)
        yield Folder(place, opened)
    finally:
        os.close(opened)


def lock(opened: int, place: Path) -> None:
    """Keep other runs of jig from filling the folder, where its file system has locks.

    Raises:
        VolumeError: one does.
    """
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise VolumeError(f"Another `jig volumes download` fills {place}.", hint="Wait until it has ended.") from error
    except OSError:  # it has none
        return


def open_folder(above: int, name: str, *, make: bool) -> int:
    """The descriptor of a folder in an open one, made if need be; a link is none."""
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=above)
    return os.open(name, FOLDER_FLAGS, dir_fd=above)


def part_name(last: str, what: bytes) -> str:
    """What a file is called until it is whole: the same each time, so that an interrupted run is gone on with. Pure."""
    return f".jig-{hashlib.sha256(last.encode() + b'/' + what).hexdigest()[:24]}.part"
