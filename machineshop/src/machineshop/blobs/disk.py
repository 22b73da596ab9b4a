"""Work on this machine's disk: off the event loop, and with its failures in the platform's words."""

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import ParamSpec, TypeVar

from machineshop.blobs.base import UploadHeld
from machineshop.errors import DiskFull

P = ParamSpec("P")
T = TypeVar("T")

# As many transfers as a disk serves well at once; the others wait for a turn of one chunk.
THREADS = 8
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def lock(path: Path) -> int:
    """Have an upload's file to oneself; the descriptor to be closed afterwards.

    Raises:
        UploadHeld: Another one does.
        FileNotFoundError: There is none.
    """
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise UploadHeld from None
    except BaseException:
        os.close(fd)
        raise
    return fd


class DiskThreads:
    """The threads that read, write and hash."""

    def __init__(self, count: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="blobs")

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        """Begin a piece of work."""
        return asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a piece of work."""
        return await self.submit(function, *args, **kwargs)

    def close(self) -> None:
        """Finish what was begun and end the threads."""
        self._pool.shutdown()


@contextmanager
def full_disk_is_an_answer() -> Iterator[None]:
    """Turn the operating system's ways to say that the disk is full into one error.

    Raises:
        DiskFull: There is no room, or no more for this user.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull from error
        raise


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of `data`; the system may take it in pieces."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def sync_directory(directory: Path) -> None:
    """Put a directory's entries on disk: what was renamed into it survives a crash."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(directory: Path) -> None:
    """Make a directory and those above it, each durably."""
    if directory.is_dir():
        return
    make_directories(directory.parent)
    directory.mkdir(exist_ok=True)
    sync_directory(directory.parent)
