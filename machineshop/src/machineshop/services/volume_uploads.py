"""Many small files at once into a version of a volume: one request, one commit of the disk, one transaction.

Clients that know nothing of it upload the same files one by one, by the routes of files.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence

from machineshop.blobs import BlobStore
from machineshop.blobs.layout import new_file_keys
from machineshop.errors import DigestMismatch, InvalidRequest
from machineshop.models import StoredFile, Volume
from machineshop.services.leftovers import Leftovers
from machineshop.services.volume_rules import Claim, check_claims
from machineshop.store import files as store
from machineshop.store import volume_files
from machineshop.store.database import Database
from machineshop.store.files import FileRecord


class VolumeUploads:
    """The batches of files of all projects."""

    def __init__(
        self, database: Database, blobs: BlobStore, leftovers: Leftovers, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._leftovers = leftovers
        self._clock = clock

    async def put(self, volume: Volume, number: int, claims: Sequence[Claim], data: memoryview) -> None:
        """Keep a batch of files, each in the place of the one of its path; all of them or none.

        Args:
            volume: Whose files they are to be.
            number: The version that is being filled: the current one, or the next.
            claims: What the files are.
            data: Their bytes, in the same order, one behind the other.

        Raises:
            InvalidRequest: It is no version to fill, a path is none, or there are more or fewer bytes.
            DigestMismatch: The bytes of a file are others.
            VolumeSealed: The version's files are settled.
            NotFound: The project is gone, or the volume.
            DiskFull: There is no room.
        """
        prefix = volume_files.prefix_of(volume.name, number)
        check_claims(prefix, claims)
        contents = _cut(claims, data)
        await asyncio.to_thread(_check_digests, claims, contents)
        keys, now = new_file_keys(len(claims)), self._clock()
        records = [
            FileRecord(_file(volume.project_id, prefix, claim, now), key)
            for claim, key in zip(claims, keys, strict=True)
        ]
        async with self._leftovers.in_flight(keys):
            await self._blobs.put_all(dict(zip(keys, contents, strict=True)))
            replaced = await self._database.write(store.put_batch, volume.project_id, volume.name, number, records)
        await self._leftovers.discard(replaced)


def _cut(claims: Sequence[Claim], data: memoryview) -> list[memoryview]:
    size = sum(claim.size for claim in claims)
    if size != len(data):
        raise InvalidRequest(
            f"These files have {size} bytes together, and {len(data)} came behind the first line of the body.",
            param="files",
        )
    contents, at = [], 0
    for claim in claims:
        contents.append(data[at : at + claim.size])
        at += claim.size
    return contents


def _check_digests(claims: Sequence[Claim], contents: Sequence[memoryview]) -> None:
    for claim, content in zip(claims, contents, strict=True):
        if hashlib.sha256(content).hexdigest() != claim.sha256:
            raise DigestMismatch(claim.path)


def _file(project_id: str, prefix: str, claim: Claim, now: float) -> StoredFile:
    return StoredFile(
        project_id=project_id,
        name=prefix + claim.path,
        size=claim.size,
        etag=claim.sha256,
        created_at=now,
        digest=claim.sha256,
    )
