"""Blobs on their way into the registry: begun, appended to in one or many requests, finished with their digest.

An upload belongs to one repository and lives in the storage under that repository's id, so that it can go on after a
restart, and at another server with the same storage.
"""

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from machineshop.blobs import Storage
from machineshop.blobs.base import DigestDiffers, Upload, UploadHeld
from machineshop.blobs.layout import REGISTRY, algorithm_of, is_digest, new_registry_key
from machineshop.errors import DiskFull
from machineshop.ids import is_id, new_id
from machineshop.services.registry_errors import ChunkOutOfOrder, DigestInvalid, UploadBusy, UploadUnknown
from machineshop.store import registry_blobs as store
from machineshop.store.database import Database
from machineshop.store.registry import REGISTRY_LOCK, Repository
from machineshop.store.registry_blobs import StoredBlob

# A client that lost its connection comes back within minutes; one that was switched off overnight may still go on.
EXPIRY_SECONDS = 24 * 3600
# More of them at once are not kept in memory.
REMEMBERED = 10_000


class BlobUpload:
    """One upload of a blob."""

    def __init__(self, upload_id: str, repository: Repository, upload: Upload) -> None:
        self.id = upload_id
        self.repository = repository
        self.upload = upload
        self._held = False

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.upload.size

    @property
    def held(self) -> bool:
        """Whether a request to this server is writing to it."""
        return self._held

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Keep other requests, to whichever server, from writing to it.

        Raises:
            UploadBusy: Another one does.
            FileNotFoundError: It has ended.
        """
        if self._held:
            raise UploadBusy
        self._held = True
        try:
            async with self.upload.hold():
                yield
        except UploadHeld:
            raise UploadBusy from None
        finally:
            self._held = False


class BlobUploads:
    """The registry's unfinished uploads. Size and hash of those in use are kept in memory, else taken from the file."""

    def __init__(self, database: Database, storage: Storage, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._blobs = storage.blobs
        self._uploads = storage.uploads
        self._clock = clock
        self._open: dict[str, BlobUpload] = {}

    async def start(self, repository: Repository) -> BlobUpload:
        """Begin an upload."""
        if len(self._open) >= REMEMBERED:  # given up, or gone on with at other servers; the rest is found on disk again
            self._open = {upload_id: blob for upload_id, blob in self._open.items() if blob.held}
        upload_id = new_id()
        upload = await self._uploads.create(_group(repository), upload_id)
        self._open[upload_id] = BlobUpload(upload_id, repository, upload)
        return self._open[upload_id]

    async def find(self, repository: Repository, upload_id: str, *, to_hold: bool = False) -> BlobUpload:
        """An unfinished upload into this repository.

        Arguments:
            repository: Which.
            upload_id: Which.
            to_hold: It is about to be held, which shows what others did with it meanwhile.

        Raises:
            UploadUnknown: There is none.
        """
        known = self._open.get(upload_id)
        if known is not None and not known.held and not to_hold:
            with self._ended(known):
                await known.upload.refresh()
        if known is None and is_id(upload_id):
            upload = await self._uploads.reopen(_group(repository), upload_id)
            if upload is not None:
                known = self._open.setdefault(upload_id, BlobUpload(upload_id, repository, upload))
        if known is None or known.repository.id != repository.id:
            raise UploadUnknown(name=repository.name)
        return known

    async def append(self, blob: BlobUpload, parts: AsyncIterable[bytes], first_byte: int | None = None) -> None:
        """Add what comes to an upload; what came before a break is kept, and can be gone on from.

        Arguments:
            blob: The upload.
            parts: Bytes in pieces of any size.
            first_byte: Where in the blob they belong; None: after what is there.

        Raises:
            ChunkOutOfOrder: They belong somewhere else; none was taken.
            UploadBusy: Another request is appending to it.
            UploadUnknown: It was cancelled meanwhile.
            DiskFull: There is no room; the upload is gone.
        """
        with self._ended(blob):
            async with blob.hold():
                _check_order(blob, first_byte)
                await blob.upload.append(parts)

    async def finish(
        self, blob: BlobUpload, digest: str, parts: AsyncIterable[bytes], first_byte: int | None = None
    ) -> None:
        """Append the rest, and make the upload a blob of its repository if it has the digest; if not, it is gone.

        Raises:
            DigestInvalid: The bytes have another digest.
            ChunkOutOfOrder, UploadBusy, UploadUnknown, DiskFull: As for `append`.
        """
        check_digest(digest)
        with self._ended(blob):
            async with blob.hold():
                _check_order(blob, first_byte)
                await blob.upload.hash_with(algorithm_of(digest))
                await blob.upload.append(parts)
                key = await self._publish(blob, digest)
        self._open.pop(blob.id, None)
        await self._keep(blob.repository, StoredBlob(digest, blob.size, key))

    async def _publish(self, blob: BlobUpload, digest: str) -> str:
        """Store the bytes under a key of their own."""
        key = blob.upload.key or new_registry_key(digest)
        try:
            await blob.upload.publish(key, digest)
        except DigestDiffers as differs:
            self._open.pop(blob.id, None)
            raise DigestInvalid(
                message=f"The {blob.size} bytes that arrived have the digest {differs.actual}, not {digest}: "
                "nothing was kept."
            ) from None
        return key

    async def _keep(self, repository: Repository, blob: StoredBlob) -> None:
        """Let the repository serve it; where bytes of this digest were there before, those are used, if they are."""
        garbage = await self._add(repository, blob, None)
        if garbage is None:
            return
        before = await self._database.read(store.find_key, blob.digest)
        if before is not None and await self._blobs.size(before) != blob.size:
            garbage = await self._add(repository, blob, before)
        if garbage is not None:
            await self._blobs.delete(garbage)

    async def _add(self, repository: Repository, blob: StoredBlob, lost_key: str | None) -> str | None:
        return await self._database.write_alone(
            REGISTRY_LOCK, store.add_blob, repository.id, blob, lost_key, self._clock()
        )

    async def push(self, repository: Repository, digest: str, parts: AsyncIterable[bytes]) -> None:
        """A whole blob in one go; nothing is kept if it breaks off.

        Raises:
            DigestInvalid: The bytes have another digest.
            DiskFull: There is no room.
        """
        check_digest(digest)
        blob = await self.start(repository)
        try:
            await self.finish(blob, digest, parts)
        except BaseException:
            await self._discard(blob)
            raise

    async def cancel(self, blob: BlobUpload) -> None:
        """Give an upload up.

        Raises:
            UploadBusy: A request is writing to it.
            UploadUnknown: It has ended already.
        """
        with self._ended(blob):
            async with blob.hold():
                await self._discard(blob)

    async def clean(self, now: float) -> int:
        """Give up the uploads that nobody went on with for `EXPIRY_SECONDS`; returns how many."""
        removed = await self._uploads.remove_older(REGISTRY, now - EXPIRY_SECONDS)
        for upload_id in removed:
            self._open.pop(upload_id, None)
        return len(removed)

    async def _discard(self, blob: BlobUpload) -> None:
        await blob.upload.discard()
        self._open.pop(blob.id, None)

    @contextmanager
    def _ended(self, blob: BlobUpload) -> Iterator[None]:
        """Forget an upload whose file is gone: taken away by another request, or for want of room."""
        try:
            yield
        except FileNotFoundError:
            self._open.pop(blob.id, None)
            raise UploadUnknown(name=blob.repository.name) from None
        except DiskFull:
            self._open.pop(blob.id, None)
            raise


def check_digest(digest: str) -> None:
    """Refuse a digest that cannot be kept.

    Raises:
        DigestInvalid: It is of no kind that is known.
    """
    if not is_digest(digest):
        raise DigestInvalid(
            message=f"'{digest[:200]}' is no digest that is known here: sha256: and 64 hex digits, or sha512: and 128."
        )


def _check_order(blob: BlobUpload, first_byte: int | None) -> None:
    if first_byte is not None and first_byte != blob.size:
        raise ChunkOutOfOrder(size=blob.size)


def _group(repository: Repository) -> str:
    return f"{REGISTRY}/{repository.id}"
