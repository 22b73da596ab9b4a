"""Bytes on their way into a bucket: parts of an object that appears as a whole when the last of them has come.

Nothing is kept on this machine, so that any server can go on with an upload. Who takes all of its bytes hashes them on
the way. Who goes on with what others began cannot: then the object is read once more before anybody hears of it.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from machineshop.blobs import states
from machineshop.blobs.base import CHUNK_BYTES, DigestDiffers
from machineshop.blobs.bucket import Bucket, UploadGone
from machineshop.blobs.disk import DiskThreads
from machineshop.blobs.layout import (
    DEFAULT_ALGORITHM,
    FILES,
    MULTIPART,
    algorithm_of,
    ended_path,
    new_file_key,
    new_object_key,
    upload_path,
)
from machineshop.blobs.states import UploadState
from machineshop.errors import PayloadTooLarge, StorageUnavailable

# What each upload has in memory is two parts: one that fills while one is on its way. A storage takes 10,000 parts, so
# those of the largest layers are larger: together they may have some 210 GiB.
PART_BYTES = 8 * 1024 * 1024
LARGE_PART_BYTES = 32 * 1024 * 1024
SMALL_PARTS = 4_000
MAX_PARTS = 10_000
MAX_BYTES = SMALL_PARTS * PART_BYTES + (MAX_PARTS - SMALL_PARTS - 1) * LARGE_PART_BYTES
# What began so long ago belongs to nobody: an upload that is still written to is younger than its state.
ORPHAN_SECONDS = 7 * 24 * 3600


class BucketUploads:
    """The unfinished uploads into a bucket; see `Uploads`. Files come in one request, and need no state."""

    def __init__(self, bucket: Bucket, threads: DiskThreads) -> None:
        self._bucket = bucket
        self._threads = threads

    async def create(self, group: str, name: str) -> "BucketUpload":
        """See `Uploads`."""
        kind = group.partition("/")[0]
        if kind == FILES:
            return BucketUpload(self._bucket, self._threads, new_file_key())
        upload = BucketUpload(self._bucket, self._threads, new_object_key(), upload_path(group, name))
        await self._threads.run(upload.save)
        return upload

    async def reopen(self, group: str, name: str) -> "BucketUpload | None":
        """See `Uploads`."""
        upload = BucketUpload(self._bucket, self._threads, "", upload_path(group, name))
        try:
            await upload.refresh()
        except FileNotFoundError:
            return None
        return upload

    async def remove_older(self, kind: str, before: float) -> list[str]:
        """See `Uploads`; of uploads in parts, also what the storage alone still knows of."""
        return await self._threads.run(self._remove_older, kind, before)

    def _remove_older(self, kind: str, before: float) -> list[str]:
        if kind == FILES:
            return []
        removed = []
        for path in (upload_path(kind, ""), ended_path(kind, "")):
            for entry in self._bucket.entries(path):
                if entry.modified_at < before:
                    states.drop(self._bucket, entry.key)
                    removed.append(entry.key.rpartition("/")[2])
        if kind == MULTIPART:
            for key, upload in self._bucket.begun_before(before - ORPHAN_SECONDS):
                self._bucket.abort(key, upload)
                removed.append(key)
        return removed


class BucketUpload:
    """One object that grows; see `Upload`.

    Args:
        bucket: Where it is to be.
        threads: In which the bucket is called.
        key: The object's.
        path: Where its state is kept between requests; None: it comes in one.
    """

    def __init__(self, bucket: Bucket, threads: DiskThreads, key: str, path: str | None = None) -> None:
        self.size = 0
        self._bucket = bucket
        self._threads = threads
        self._path = path
        self._state = UploadState(key)
        self._parts: list[tuple[int, str]] = []
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._unhashed_from = 0
        # None: not all bytes passed through here.
        self._hash: hashlib._Hash | None = hashlib.new(DEFAULT_ALGORITHM)
        self._shipping: asyncio.Future[None] | None = None
        self._is_broken = False

    @property
    def key(self) -> str:
        """See `Upload`."""
        return self._state.key

    @property
    def digest(self) -> str:
        """See `Upload`."""
        if self._hash is None:
            raise RuntimeError("the digest of an upload that others began is known when it is published")
        return f"{self._hash.name}:{self._hash.hexdigest()}"

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """See `Upload`. Servers don't lock one another out: what one of them sent makes the whole, or nothing does."""
        await self.refresh()
        yield

    async def refresh(self) -> None:
        """See `Upload`."""
        if self._path is not None:
            await self._threads.run(self._refresh, self._path)

    async def hash_with(self, algorithm: str) -> None:
        """See `Upload`."""
        if self._hash is not None and self._hash.name != algorithm:
            self._hash = hashlib.new(algorithm) if self.size == 0 else None

    async def append(self, parts: AsyncIterable[bytes], limit_bytes: int | None = None) -> None:
        """See `Upload`."""
        before = self.size
        try:
            async for piece in parts:
                self._take(piece, before, limit_bytes)
                if self._tail_size >= _part_bytes(len(self._parts) + 1):
                    await self._shipped()
                    self._shipping = self._threads.submit(self._ship, self._cut())
        except BaseException:
            with contextlib.suppress(StorageUnavailable, FileNotFoundError):
                await asyncio.shield(self._settle(before))
            raise
        await self._settle(before)

    async def publish(self, key: str, digest: str | None = None) -> None:
        """See `Upload`."""
        if key != self.key:
            raise ValueError("the bytes lie under another key")
        await self._threads.run(self._publish, digest)

    async def discard(self) -> None:
        """See `Upload`."""
        await self._shipped(fails=False)
        await self._threads.run(self._discard)

    def save(self) -> None:
        """Store how far it is; runs in a thread."""
        if self._path is not None:
            self._state.offset = self.size - self._tail_size
            self._state.body = b"".join(self._tail)
            self._state.save(self._bucket, self._path)
            self._state.body = b""

    def _take(self, piece: bytes, before: int, limit_bytes: int | None) -> None:
        if limit_bytes is not None and self.size + len(piece) - before > limit_bytes:
            raise PayloadTooLarge(what="The upload", limit_bytes=limit_bytes, mend="Send it in several files.")
        if self.size + len(piece) > MAX_BYTES:
            raise PayloadTooLarge(what="The upload", limit_bytes=MAX_BYTES, mend="Send it in several blobs.")
        self.size += len(piece)
        self._tail.append(piece)
        self._tail_size += len(piece)

    def _cut(self) -> list[bytes]:
        cut, self._tail, self._tail_size = self._tail, [], 0
        return cut

    async def _shipped(self, *, fails: bool = True) -> None:
        """Wait for the part that is on its way."""
        if self._shipping is None:
            return
        try:
            await asyncio.shield(self._shipping)
        except asyncio.CancelledError:
            raise
        except Exception:
            self._is_broken = True
            if fails:
                raise
        self._shipping = None

    async def _settle(self, before: int) -> None:
        await self._shipped()
        if self.size != before:
            await self._threads.run(self._hash_tail)
            await self._threads.run(self.save)

    def _ship(self, cut: list[bytes]) -> None:
        """Store a part; runs in a thread, one at a time."""
        data = b"".join(cut)
        self._hash_new(data)
        self._unhashed_from = 0
        is_first = not self._state.upload
        try:
            if is_first:
                self._state.upload = self._bucket.begin(self.key)
            number = len(self._parts) + 1
            self._parts.append((number, self._bucket.put_part(self.key, self._state.upload, number, data)))
            if is_first and self._path is not None:  # after a crash somebody can go on from here
                UploadState(self.key, self._state.upload, len(data)).save(self._bucket, self._path)
        except UploadGone:
            raise FileNotFoundError(self.key) from None

    def _hash_tail(self) -> None:
        tail = b"".join(self._tail)
        self._hash_new(tail)
        self._tail, self._unhashed_from = [tail] if tail else [], len(tail)

    def _hash_new(self, data: bytes) -> None:
        if self._hash is not None:
            self._hash.update(memoryview(data)[self._unhashed_from :])

    def _refresh(self, path: str) -> None:
        version = states.version_of(self._bucket, path)
        if version is None:
            raise FileNotFoundError(path)
        if version != self._state.version or self._is_broken:
            self._load(path)

    def _load(self, path: str) -> None:
        """Take over what others have done, or what is left after a failure."""
        state = states.load(self._bucket, path)
        if state is None:
            raise FileNotFoundError(path)
        try:
            parts = self._bucket.parts(state.key, state.upload) if state.upload else {}
        except UploadGone:
            raise FileNotFoundError(path) from None
        stored = sum(size for _, size in parts.values())
        tail = state.body if stored == state.offset else b""  # else it went into a part since
        state.body = b""
        self._state = state
        self._parts = [(number, etag) for number, (etag, _) in sorted(parts.items())]
        self._tail, self._tail_size, self._unhashed_from = [tail] if tail else [], len(tail), len(tail)
        self.size = stored + len(tail)
        self._hash = hashlib.new(DEFAULT_ALGORITHM) if self.size == 0 else None
        self._is_broken = False

    def _publish(self, digest: str | None) -> None:
        if self._tail and self._state.upload:
            self._ship(self._cut())
        if self._state.upload:
            self._check(digest)
            try:
                self._bucket.complete(self.key, self._state.upload, self._parts)
            except UploadGone:
                raise FileNotFoundError(self.key) from None
            if self._hash is None and digest is not None:
                self._check_again(digest)
        else:
            self._publish_small(digest)
        if self._path is not None:
            with contextlib.suppress(StorageUnavailable):  # it goes with the old ones
                self._bucket.delete(self._path)

    def _publish_small(self, digest: str | None) -> None:
        data = b"".join(self._tail)
        if self._hash is None and digest is not None:
            self._hash = hashlib.new(algorithm_of(digest), data)
        self._check(digest)
        self._bucket.put(self.key, data)

    def _check(self, digest: str | None) -> None:
        if digest is not None and self._hash is not None and self.digest != digest:
            self._discard()
            raise DigestDiffers(self.digest)

    def _check_again(self, digest: str) -> None:
        """Read the whole to see whether it is what it should be."""
        hasher = hashlib.new(algorithm_of(digest))
        body, left = self._bucket.open(self.key, 0, self.size), self.size
        while left:
            data = self._bucket.read(body, min(CHUNK_BYTES, left))
            hasher.update(data)
            left -= len(data)
        actual = f"{hasher.name}:{hasher.hexdigest()}"
        if actual != digest:
            self._bucket.delete(self.key)
            self._discard()
            raise DigestDiffers(actual)

    def _discard(self) -> None:
        if self._state.upload:
            self._bucket.abort(self.key, self._state.upload)
        if self._path is not None:
            self._bucket.delete(self._path)


def _part_bytes(number: int) -> int:
    return PART_BYTES if number <= SMALL_PARTS else LARGE_PART_BYTES
