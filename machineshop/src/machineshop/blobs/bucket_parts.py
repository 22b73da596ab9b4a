"""Uploads in parts that a bucket takes itself: by signed URLs, without the bytes passing through the platform."""

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager

from machineshop.blobs import states
from machineshop.blobs.base import Part, PartMissing, UploadHeld
from machineshop.blobs.bucket import Bucket, ObjectMissing, UploadGone
from machineshop.blobs.disk import DiskThreads
from machineshop.blobs.layout import ended_path, new_file_key, upload_path
from machineshop.blobs.states import UploadState
from machineshop.errors import InvalidRequest, NotFound

# What object storages ask of every part but the last.
MIN_PART_BYTES = 5 * 1024 * 1024


class BucketParts:
    """The unfinished uploads in parts; see `PartUploads`. The facts of those that have ended lie apart."""

    def __init__(self, bucket: Bucket, threads: DiskThreads) -> None:
        self._bucket = bucket
        self._threads = threads
        self._held: set[str] = set()

    async def write_facts(self, group: str, upload_id: str, facts: bytes) -> None:
        """See `PartUploads`."""
        await self._threads.run(self._write_facts, upload_path(group, upload_id), facts)

    async def facts(self, group: str, upload_id: str) -> bytes | None:
        """See `PartUploads`."""
        for path in (upload_path(group, upload_id), ended_path(group, upload_id)):
            state = await self._threads.run(states.load, self._bucket, path)
            if state is not None:
                return state.body
        return None

    async def all_facts(self, group: str) -> dict[str, bytes]:
        """See `PartUploads`."""
        return await self._threads.run(self._all_facts, group)

    async def groups(self, kind: str) -> list[str]:
        """See `PartUploads`."""
        folders = await self._threads.run(self._bucket.folders, upload_path(kind, ""))
        return [f"{kind}/{folder}" for folder in folders]

    async def part_urls(self, group: str, upload_id: str, count: int, lifetime_seconds: int) -> list[str] | None:
        """See `PartUploads`."""
        state = await self._state(group, upload_id)
        return await self._threads.run(self._bucket.part_urls, state.key, state.upload, count, lifetime_seconds)

    async def receive(
        self,
        group: str,  # noqa: ARG002
        upload_id: str,
        number: int,  # noqa: ARG002
        parts: AsyncIterable[bytes],  # noqa: ARG002
        limit_bytes: int,  # noqa: ARG002
    ) -> str:
        """See `PartUploads`: nobody was told to bring them to us."""
        raise NotFound(what="upload", id=upload_id)

    @asynccontextmanager
    async def hold(self, group: str, upload_id: str) -> AsyncIterator[None]:
        """See `PartUploads`. Two servers that do it at once do the same, and the second changes nothing."""
        await self._state(group, upload_id)
        name = upload_path(group, upload_id)
        if name in self._held:
            raise UploadHeld
        self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)

    async def key(self, group: str, upload_id: str) -> str | None:
        """See `PartUploads`."""
        return (await self._state(group, upload_id)).key

    async def size(self, group: str, upload_id: str, parts: Sequence[Part]) -> int:
        """See `PartUploads`."""
        state = await self._state(group, upload_id)
        try:
            stored = await self._threads.run(self._bucket.parts, state.key, state.upload)
        except UploadGone:  # by a request whose end was never noted, or not at all
            return await self._size_of_whole(state)
        size = 0
        for part in parts:
            etag, part_size = stored.get(part.number, ("", 0))
            if etag != part.etag:
                raise PartMissing(part.number)
            if part_size < MIN_PART_BYTES and part is not parts[-1]:
                raise InvalidRequest(
                    f"Part {part.number} has {part_size} bytes; all but the last need {MIN_PART_BYTES} or more.",
                    param="parts",
                )
            size += part_size
        return size

    async def publish(self, group: str, upload_id: str, parts: Sequence[Part], key: str) -> None:
        """See `PartUploads`."""
        state = await self._state(group, upload_id)
        if key != state.key:
            raise ValueError("the parts lie under another key")
        try:
            await self._threads.run(self._bucket.complete, state.key, state.upload, list(parts))
        except UploadGone:
            raise FileNotFoundError(key) from None

    async def discard(self, group: str, upload_id: str, *, keep_facts: bool = False) -> None:
        """See `PartUploads`."""
        await self._threads.run(self._discard, group, upload_id, keep_facts)

    async def _size_of_whole(self, state: UploadState) -> int:
        try:
            return (await self._threads.run(self._bucket.head, state.key)).size
        except ObjectMissing:
            raise FileNotFoundError(state.key) from None

    async def _state(self, group: str, upload_id: str) -> UploadState:
        state = await self._threads.run(states.load, self._bucket, upload_path(group, upload_id))
        if state is None:
            raise FileNotFoundError(upload_id)
        return state

    def _write_facts(self, path: str, facts: bytes) -> None:
        state = states.load(self._bucket, path)
        if state is None:
            key = new_file_key()
            state = UploadState(key, self._bucket.begin(key))
        state.body = facts
        state.save(self._bucket, path)

    def _all_facts(self, group: str) -> dict[str, bytes]:
        found = {}
        for entry in self._bucket.entries(upload_path(group, "")):
            state = states.load(self._bucket, entry.key)
            if state is not None:  # else it ended meanwhile
                found[entry.key.rpartition("/")[2]] = state.body
        return found

    def _discard(self, group: str, upload_id: str, keep_facts: bool) -> None:
        path = upload_path(group, upload_id)
        state = states.load(self._bucket, path)
        if state is None:
            return
        if keep_facts:
            state.save(self._bucket, ended_path(group, upload_id))
            self._bucket.delete(path)
        else:
            states.drop(self._bucket, path)
