"""Whole blobs as files on this machine's disk.

The upload's file is renamed into place, so a blob costs one write, and the name is on disk before anybody hears of it.
"""

import asyncio
import contextlib
import errno
import itertools
import mmap
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from io import FileIO
from pathlib import Path

from machineshop.blobs.base import CHUNK_BYTES, BlobEntry, BlobMissing
from machineshop.blobs.disk import DiskThreads, full_disk_is_an_answer, make_directories, sync_directory, write_all
from machineshop.blobs.ranges import ByteRange

# What is mapped at a time: as much as a socket takes at once, so that the cost of mapping does not show.
WINDOW_BYTES = 4 * 1024 * 1024
# What is read while it is opened: of a small file, changing threads is most of the work.
WHOLE_BYTES = 64 * 1024
# Small files that are open at once on their way to the disk, in each thread: processes may have about a thousand.
SYNCED_AT_ONCE = 32
# Another file system, one without links, or as many links as it takes.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK}
_FAN = re.compile(r"[0-9a-f]{2}")


class LocalBlobs:
    """A directory of blobs, on the same file system as the uploads."""

    signs = False

    def __init__(self, directory: Path, threads: DiskThreads) -> None:
        self._directory = directory
        self._threads = threads

    async def publish(self, path: Path, key: str) -> None:
        """Make a local file the blob of this key at once and durably, replacing what was there; the file is gone after.

        Raises:
            DiskFull: There is no room; nothing was changed.
        """
        await self._threads.run(_publish, path, self._directory / key)

    async def put_all(self, contents: Mapping[str, memoryview]) -> None:
        """See `BlobStore`."""
        await self._threads.run(_put_all, self._directory, contents)

    async def read_all(self, keys: Sequence[str]) -> list[bytes]:
        """See `BlobStore`: in one thread, as changing threads takes longer than reading."""
        return await self._threads.run(_read_all, self._directory, keys)

    async def open(self, key: str) -> "LocalBlob | WholeBlob":
        """See `BlobStore`."""
        try:
            opened = await self._threads.run(_open, self._directory / key)
        except FileNotFoundError:
            raise BlobMissing(key) from None
        return WholeBlob(opened) if isinstance(opened, bytes) else LocalBlob(opened, self._threads)

    async def size(self, key: str) -> int | None:
        """See `BlobStore`."""
        try:
            return (await self._threads.run((self._directory / key).stat)).st_size
        except FileNotFoundError:
            return None

    async def signed_url(self, key: str, content_type: str, disposition: str | None = None) -> str | None:  # noqa: ARG002
        """See `BlobStore`: a disk has no address."""
        return None

    async def link(self, key: str, target: Path) -> bool:
        """See `BlobStore`."""
        return await self._threads.run(_link, self._directory / key, target)

    async def delete(self, key: str) -> None:
        """See `BlobStore`."""
        await self._threads.run((self._directory / key).unlink, missing_ok=True)

    async def entries(self, prefix: str) -> list[BlobEntry]:
        """See `BlobStore`."""
        return await self._threads.run(_entries, self._directory, prefix)


class WholeBlob:
    """A small file, read as it was opened."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    async def chunks(self, wanted: ByteRange | None = None) -> AsyncIterator[bytes]:
        """See `Blob`."""
        if self._data:
            yield self._data if wanted is None else self._data[wanted.start : wanted.end]

    async def windows(self, wanted: ByteRange | None = None) -> AsyncIterator[memoryview]:
        """See `Blob`."""
        async for chunk in self.chunks(wanted):
            yield memoryview(chunk)

    async def close(self) -> None:
        """See `Blob`."""


class LocalBlob:
    """An open file."""

    def __init__(self, fd: int, threads: DiskThreads) -> None:
        self._fd = fd
        self._threads = threads
        self.size = os.fstat(fd).st_size

    async def chunks(self, wanted: ByteRange | None = None) -> AsyncIterator[bytes]:
        """See `Blob`."""
        at, end = (0, self.size) if wanted is None else (wanted.start, wanted.end)
        try:
            while at < end:
                data = await self._threads.run(os.pread, self._fd, min(CHUNK_BYTES, end - at), at)
                if not data:
                    raise OSError("the file became shorter while it was read")
                at += len(data)
                yield data
        finally:
            await self.close()

    async def windows(self, wanted: ByteRange | None = None) -> AsyncIterator[memoryview]:
        """See `Blob`."""
        at, end = (0, self.size) if wanted is None else (wanted.start, wanted.end)
        upcoming = self._window(at, end)
        try:
            while upcoming is not None:
                window = await asyncio.shield(upcoming)
                at += len(window)
                upcoming = self._window(at, end)  # it is read in while this one is sent
                yield window
        finally:
            if upcoming is not None:  # a thread is at the file
                await asyncio.gather(upcoming, return_exceptions=True)
            await self.close()

    def _window(self, at: int, end: int) -> "asyncio.Future[memoryview] | None":
        return self._threads.submit(_map, self._fd, at, min(WINDOW_BYTES, end - at)) if at < end else None

    async def close(self) -> None:
        """See `Blob`."""
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        # A response that never began never ends its iteration either.
        self._close()


def _open(path: Path) -> int | bytes:
    """The descriptor of an open file, or the bytes of a small one."""
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    if size > WHOLE_BYTES:
        return fd
    try:
        data = os.pread(fd, size, 0)
    finally:
        os.close(fd)
    if len(data) < size:
        raise OSError("the file became shorter while it was read")
    return data


def _read_all(directory: Path, keys: Sequence[str]) -> list[bytes]:
    found = []
    for key in keys:
        try:
            found.append((directory / key).read_bytes())
        except FileNotFoundError:
            raise BlobMissing(key) from None
    return found


def _map(fd: int, start: int, size: int) -> memoryview:
    """Some bytes of a file, mapped and read in; they are unmapped with the last view of them."""
    before = start % mmap.ALLOCATIONGRANULARITY
    flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)  # elsewhere than on Linux they are read when sent
    mapped = mmap.mmap(fd, before + size, flags, mmap.PROT_READ, offset=start - before)
    return memoryview(mapped)[before:]


def _link(path: Path, target: Path) -> bool:
    try:
        target.hardlink_to(path)
    except FileNotFoundError:
        if path.exists():
            raise  # it is the target's folder that is missing
        raise BlobMissing(path.name) from None
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def _publish(path: Path, target: Path) -> None:
    """Nobody knows the key yet, so the name may come before the bytes are on disk: one commit of the disk has both.

    The directory is synced all the same: it costs little where the file's commit had it already.
    """
    with full_disk_is_an_answer():
        _make_fan(target.parent)
        fd = os.open(path, os.O_RDONLY)
        try:
            os.utime(fd)  # its age counts from now, however long the upload took
            path.replace(target)
            os.fsync(fd)
            sync_directory(target.parent)
        except OSError:
            target.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)


def _put_all(directory: Path, contents: Mapping[str, memoryview]) -> None:
    """Nobody knows the keys yet, so the files may stand under them before their bytes are on disk; after an error none.

    Whoever is refused for want of room must not take what room there is from the others.
    """
    files = {directory / key: data for key, data in contents.items()}
    folders = {path.parent for path in files}
    made: list[Path] = []
    with full_disk_is_an_answer():
        try:
            for folder in folders:
                _make_fan(folder)
            left = iter(files.items())
            while some := list(itertools.islice(left, SYNCED_AT_ONCE)):
                _put_some(some, made)
            for folder in folders:
                sync_directory(folder)
        except OSError:
            for path in made:
                with contextlib.suppress(OSError):  # what cannot be removed now is looked at again
                    path.unlink()
            raise


def _put_some(files: Iterable[tuple[Path, memoryview]], made: list[Path]) -> None:
    """Write files, and put them on disk together: one after the other, each would wait for a commit of its own.

    Those that there are now, whole or not, come into `made`.
    """
    opened: list[FileIO] = []
    try:
        for path, data in files:
            file = path.open("xb", buffering=0)
            opened.append(file)
            made.append(path)
            write_all(file, data)
        for file in opened:
            _begin_sync(file)
        for file in opened:
            os.fsync(file)
    finally:
        for file in opened:
            file.close()


def _begin_sync(file: FileIO) -> None:
    """Have the system begin to put a file's bytes on disk, where it knows a way that does not wait for it."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _make_fan(directory: Path) -> None:
    """Make one of the directories that are named by two digits, and all others beside it: one sync is for all."""
    if directory.is_dir():
        return
    if not _FAN.fullmatch(directory.name):
        make_directories(directory)
        return
    make_directories(directory.parent)
    for number in range(256):
        directory.with_name(f"{number:02x}").mkdir(exist_ok=True)
    sync_directory(directory.parent)


def _entries(directory: Path, prefix: str) -> list[BlobEntry]:
    found = []
    for folder, _, names in os.walk(directory / prefix):
        for name in names:
            path = Path(folder, name)
            try:
                found.append(BlobEntry(str(path.relative_to(directory)), path.stat().st_mtime))
            except FileNotFoundError:
                continue  # deleted since the folder was read
    return found
