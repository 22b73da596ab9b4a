"""The files of volumes for whoever mounts them: a runtime's source of them, and their digests.

A file that came in one piece is hashed on the way. One that came in parts is not: then its bytes are read once more,
soon after it came, or when somebody asks for it before that.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from machineshop.blobs.base import BlobMissing, BlobStore
from machineshop.errors import ArtifactMissing
from machineshop.models import StoredFile
from machineshop.runtime.base import VolumeFile
from machineshop.states import VolumeState
from machineshop.store import volume_files as store
from machineshop.store import volumes
from machineshop.store.database import Database

log = logging.getLogger(__name__)

# Files that are hashed at once: each takes a core, or a stream from the object storage.
HASHED_AT_ONCE = 2
# Bytes that are not in the storage are mostly gone for good; a storage that was not there in full is, after minutes.
HASH_AGAIN_SECONDS = 600.0
_BATCH = 100


class VolumeContents:
    """What versions of volumes hold, of all projects; a runtime's `VolumeSource`."""

    def __init__(self, database: Database, blobs: BlobStore, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._turns = asyncio.Semaphore(HASHED_AT_ONCE)
        self._hashing: dict[str, asyncio.Task[str]] = {}

    async def volume_files(self, project_id: str, volume_id: str, version: int) -> list[VolumeFile]:
        """The files of a version that is ready, by path; those without a digest are hashed first.

        Raises:
            ArtifactMissing: There is no such version, it is not ready, or bytes of it are gone.
        """
        found = await self._database.read(volumes.version, volume_id, version)
        if found is None or found.state is not VolumeState.READY:
            raise ArtifactMissing(f"Version {version} of this volume is gone, or not ready.")
        files = await self._database.read(store.with_blobs, project_id, volume_id, version)
        if not files:
            raise ArtifactMissing(f"Version {version} of this volume has no files in this project.")
        return [
            VolumeFile(
                path=store.path_of(file),
                size=file.size,
                digest=file.digest or await self._digest(file, blob_key),
                blob_key=blob_key,
            )
            for file, blob_key in files
        ]

    async def has_volume(self, project_id: str, volume_id: str, version: int) -> bool:
        """See `VolumeSource`."""
        volume = await self._database.read(volumes.get, project_id, volume_id)
        return volume is not None and await self._database.read(volumes.version, volume_id, version) is not None

    async def open_file(self, file: VolumeFile) -> AsyncIterator[bytes]:
        """See `VolumeSource`."""
        try:
            return (await self._blobs.open(file.blob_key)).chunks()
        except BlobMissing:
            raise ArtifactMissing(f"The file '{file.path}' is gone: its volume was deleted.") from None

    async def link_file(self, file: VolumeFile, target: Path) -> bool:
        """See `VolumeSource`."""
        try:
            return await self._blobs.link(file.blob_key, target)
        except BlobMissing:
            raise ArtifactMissing(f"The file '{file.path}' is gone: its volume was deleted.") from None

    async def hash_new(self, now: float) -> int:
        """Hash what came in parts; returns how many files were looked at. For a loop.

        Those whose bytes are not in the storage have to wait until all others had their turn, and some minutes besides.
        """
        found = await self._database.read(store.unhashed, now, _BATCH)
        done = await asyncio.gather(*(self._digest(file, blob_key) for file, blob_key in found), return_exceptions=True)
        for (file, _), result in zip(found, done, strict=True):
            if isinstance(result, ArtifactMissing):
                log.warning("volumes.not_hashed project_id=%s name=%s %s", file.project_id, file.name, result.message)
            elif isinstance(result, BaseException):
                raise result
        return len(found)

    async def close(self) -> None:
        """Break off what is being hashed; it is begun anew after the next start."""
        tasks = list(self._hashing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _digest(self, file: StoredFile, blob_key: str) -> str:
        # Whoever else wants it meanwhile waits for the same.
        task = self._hashing.get(blob_key)
        if task is None:
            task = asyncio.create_task(self._hash(file, blob_key), name=f"hash-{blob_key}")
            self._hashing[blob_key] = task
            task.add_done_callback(lambda _: self._hashing.pop(blob_key, None))
        return await asyncio.shield(task)

    async def _hash(self, file: StoredFile, blob_key: str) -> str:
        hasher = hashlib.sha256()
        async with self._turns:
            try:
                blob = await self._blobs.open(blob_key)
                async for chunk in blob.chunks():
                    await asyncio.to_thread(hasher.update, chunk)
            except BlobMissing:
                again_at = self._clock() + HASH_AGAIN_SECONDS
                if await self._database.write(store.note_missing, blob_key, again_at):
                    raise ArtifactMissing(f"The bytes of '{file.name}' are not in the platform's storage.") from None
                raise ArtifactMissing(f"The file '{file.name}' is gone: it was deleted.") from None
            digest = hasher.hexdigest()
            await self._database.write(store.note_digest, blob_key, digest)
        return digest
