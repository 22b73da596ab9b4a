"""Bytes on their way in: each upload is a local file that grows, with the digest of what it holds so far."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from io import SEEK_END, FileIO
from pathlib import Path

from machineshop.blobs.base import CHUNK_BYTES, DigestDiffers
from machineshop.blobs.disk import DiskThreads, full_disk_is_an_answer, lock, write_all
from machineshop.blobs.layout import DEFAULT_ALGORITHM, algorithm_of
from machineshop.blobs.local import LocalBlobs
from machineshop.errors import PayloadTooLarge

# What was written is put on disk while more comes in, from this much on at a time. Left to the end, the disk would
# stand still for most of an upload, and the last request would wait for all of it.
SYNC_BYTES = 8 * 1024 * 1024


class LocalUploads:
    """The unfinished uploads under one directory, on the same file system as the blobs; see `Uploads`."""

    def __init__(self, directory: Path, blobs: LocalBlobs, threads: DiskThreads) -> None:
        self._directory = directory
        self._blobs = blobs
        self._threads = threads

    async def create(self, group: str, name: str) -> "LocalUpload":
        """See `Uploads`."""
        path = self._directory / group / name
        await self._threads.run(_create, path)
        return LocalUpload(path, self._blobs, self._threads)

    async def reopen(self, group: str, name: str) -> "LocalUpload | None":
        """See `Uploads`; the hash is taken anew."""
        upload = LocalUpload(self._directory / group / name, self._blobs, self._threads)
        try:
            await self._threads.run(upload.read_again)
        except FileNotFoundError:
            return None
        return upload

    async def remove_older(self, kind: str, before: float) -> list[str]:
        """See `Uploads`."""
        return await self._threads.run(_remove_older, self._directory / kind, before)


class LocalUpload:
    """One file that grows; see `Upload`."""

    def __init__(self, path: Path, blobs: LocalBlobs, threads: DiskThreads) -> None:
        self.path = path
        self.size = 0
        """Bytes written so far."""
        self.key = None
        self._blobs = blobs
        self._threads = threads
        self._hash = hashlib.new(DEFAULT_ALGORITHM)

    @property
    def digest(self) -> str:
        """Of the bytes written so far."""
        return f"{self._hash.name}:{self._hash.hexdigest()}"

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """See `Upload`."""
        fd = await self._threads.run(self._lock)
        try:
            yield
        finally:
            os.close(fd)

    async def refresh(self) -> None:
        """See `Upload`."""
        await self._threads.run(self._refresh)

    async def hash_with(self, algorithm: str) -> None:
        """See `Upload`; what is there already is read once more."""
        if algorithm != self._hash.name:
            await self._threads.run(self.read_again, algorithm)

    async def append(self, parts: AsyncIterable[bytes], limit_bytes: int | None = None) -> None:
        """See `Upload`."""
        writer = _Writer(self, self._threads)
        try:
            await writer.take(parts, limit_bytes)
        finally:
            await writer.finish()

    async def publish(self, key: str, digest: str | None = None) -> None:
        """See `Upload`."""
        if digest is not None:
            await self.hash_with(algorithm_of(digest))
            if self.digest != digest:
                await self.discard()
                raise DigestDiffers(self.digest)
        await self._blobs.publish(self.path, key)

    async def discard(self) -> None:
        """See `Upload`."""
        await self._threads.run(self.path.unlink, missing_ok=True)

    def write(self, file: FileIO, batch: list[bytes]) -> None:
        """Write and hash one batch; runs in a thread."""
        data = batch[0] if len(batch) == 1 else b"".join(batch)
        try:
            with full_disk_is_an_answer():
                write_all(file, data)
        except BaseException:
            # A piece of it may be on disk without being hashed: nobody can go on with that.
            self.path.unlink(missing_ok=True)
            raise
        self._hash.update(data)
        self.size += len(data)

    def read_again(self, algorithm: str | None = None) -> None:
        """Take size and hash from the file, perhaps with another hash; runs in a thread."""
        self._hash, self.size = hashlib.new(algorithm or self._hash.name), 0
        with self.path.open("rb") as file:
            while data := file.read(CHUNK_BYTES):
                self._hash.update(data)
                self.size += len(data)

    def _refresh(self) -> None:
        if self.path.stat().st_size != self.size:
            self.read_again()

    def _lock(self) -> int:
        fd = lock(self.path)
        try:
            _check_same(fd, self.path)
            self._refresh()
        except BaseException:
            os.close(fd)
            raise
        return fd


class _Writer:
    """Gathers small pieces into chunks; writes one, and puts those before it on disk, while the next one comes in."""

    def __init__(self, upload: LocalUpload, threads: DiskThreads) -> None:
        self._upload = upload
        self._file: FileIO | None = None  # many a request only ends what others have brought
        self._is_closed = False
        self._threads = threads
        self._batch: list[bytes] = []
        self._batch_size = 0
        self._writing: asyncio.Future[None] | None = None
        self._unsynced_bytes = 0
        self._syncing: asyncio.Future[None] | None = None

    async def take(self, parts: AsyncIterable[bytes], limit_bytes: int | None) -> None:
        received = 0
        async for part in parts:
            received += len(part)
            if limit_bytes is not None and received > limit_bytes:
                raise PayloadTooLarge(what="The upload", limit_bytes=limit_bytes, mend="Send it in several files.")
            self._batch.append(part)
            self._batch_size += len(part)
            if self._batch_size >= CHUNK_BYTES:
                await self._write_batch()

    async def finish(self) -> None:
        try:
            if self._batch:
                await self._write_batch()
            await self._written()
            if self._syncing is not None:
                await asyncio.shield(self._syncing)
        finally:
            # No thread can write through it once it is closed, even if we are cancelled while one is at it.
            if self._file is not None:
                self._file.close()
            self._is_closed = True

    async def _write_batch(self) -> None:
        await self._written()
        batch, size = self._batch, self._batch_size
        self._batch, self._batch_size = [], 0
        self._writing = self._threads.submit(self._write, batch)
        self._unsynced_bytes += size
        if self._unsynced_bytes >= SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            self._unsynced_bytes = 0
            self._syncing = self._threads.submit(self._sync)

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    def _write(self, batch: list[bytes]) -> None:
        if self._file is None:
            file = _open_to_append(self._upload.path)
            if self._is_closed:
                file.close()
            self._file = file
        self._upload.write(self._file, batch)

    def _sync(self) -> None:
        if self._file is not None:
            with full_disk_is_an_answer():
                os.fdatasync(self._file.fileno())


def _check_same(fd: int, path: Path) -> None:
    """Raise where the file has lost its name since it was opened: as a blob, nobody may write to it."""
    if not os.path.samestat(os.fstat(fd), path.stat()):
        raise FileNotFoundError(path)


def _create(path: Path) -> None:
    with full_disk_is_an_answer():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(exist_ok=False)


def _open_to_append(path: Path) -> FileIO:
    file = path.open("r+b", buffering=0)  # unlike "ab", this makes no new file where the upload was removed
    file.seek(0, SEEK_END)
    return file


def _remove_older(directory: Path, before: float) -> list[str]:
    removed = []
    for path in directory.glob("*/*"):
        try:
            if path.stat().st_mtime < before:
                path.unlink()
                removed.append(path.name)
        except FileNotFoundError:
            continue  # finished meanwhile
    return removed
