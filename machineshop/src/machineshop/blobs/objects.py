"""Whole blobs as objects in a bucket."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from machineshop.blobs.base import CHUNK_BYTES, BlobEntry, BlobMissing
from machineshop.blobs.bucket import Bucket, ObjectMissing
from machineshop.blobs.disk import DiskThreads
from machineshop.blobs.ranges import ByteRange
from machineshop.errors import StorageUnavailable

# A connection that breaks while an object is read: so often in a row another one goes on.
_TRIES = 3


class BucketBlobs:
    """The blobs of a bucket.

    Args:
        bucket: Where they are.
        threads: In which it is called.
        signs: Send readers there; otherwise the bytes pass through this process.
    """

    def __init__(self, bucket: Bucket, threads: DiskThreads, *, signs: bool) -> None:
        self.signs = signs
        self._bucket = bucket
        self._threads = threads

    async def put_all(self, contents: Mapping[str, memoryview]) -> None:
        """See `BlobStore`: as many at a time as there are threads."""
        putting = [self._threads.submit(self._put, key, data) for key, data in contents.items()]
        try:
            await asyncio.gather(*putting)
        finally:
            for each in putting:
                each.cancel()

    async def read_all(self, keys: Sequence[str]) -> list[bytes]:
        """See `BlobStore`: as many at a time as there are threads."""
        reading = [self._threads.submit(self._read, key) for key in keys]
        try:
            return await asyncio.gather(*reading)
        finally:
            for each in reading:
                each.cancel()

    async def open(self, key: str) -> "BucketBlob":
        """See `BlobStore`."""
        size = await self.size(key)
        if size is None:
            raise BlobMissing(key)
        return BucketBlob(self._bucket, self._threads, key, size)

    async def size(self, key: str) -> int | None:
        """See `BlobStore`."""
        try:
            return (await self._threads.run(self._bucket.head, key)).size
        except ObjectMissing:
            return None

    async def signed_url(self, key: str, content_type: str, disposition: str | None = None) -> str | None:
        """See `BlobStore`."""
        return await self._threads.run(self._bucket.read_url, key, content_type, disposition) if self.signs else None

    async def link(self, key: str, target: Path) -> bool:  # noqa: ARG002
        """See `BlobStore`: they lie elsewhere."""
        return False

    async def delete(self, key: str) -> None:
        """See `BlobStore`."""
        await self._threads.run(self._bucket.delete, key)

    async def entries(self, prefix: str) -> list[BlobEntry]:
        """See `BlobStore`."""
        return await self._threads.run(self._bucket.entries, f"{prefix}/")

    def _put(self, key: str, data: memoryview) -> None:
        self._bucket.put(key, bytes(data))

    def _read(self, key: str) -> bytes:
        try:
            return self._bucket.get(key).body
        except ObjectMissing:
            raise BlobMissing(key) from None


class BucketBlob:
    """An object, to be read; nothing is open before the first byte is wanted."""

    def __init__(self, bucket: Bucket, threads: DiskThreads, key: str, size: int) -> None:
        self.size = size
        self._bucket = bucket
        self._threads = threads
        self._key = key

    async def chunks(self, wanted: ByteRange | None = None) -> AsyncIterator[bytes]:
        """See `Blob`."""
        at, end = (0, self.size) if wanted is None else (wanted.start, wanted.end)
        tries = 0
        while at < end:
            body: Any = None
            try:
                body = await self._threads.run(self._bucket.open, self._key, at, end)
                while at < end:
                    data = await self._threads.run(self._bucket.read, body, min(CHUNK_BYTES, end - at))
                    at, tries = at + len(data), 0
                    yield data
            except ObjectMissing:
                raise BlobMissing(self._key) from None
            except StorageUnavailable:
                tries += 1
                if tries >= _TRIES:
                    raise
            finally:
                if body is not None:
                    body.close()

    async def windows(self, wanted: ByteRange | None = None) -> AsyncIterator[memoryview]:
        """See `Blob`."""
        async for chunk in self.chunks(wanted):
            yield memoryview(chunk)

    async def close(self) -> None:
        """See `Blob`."""
