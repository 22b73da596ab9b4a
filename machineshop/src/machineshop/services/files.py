"""Object storage for a project's files: upload by a signed URL, read, delete.

What a job's attempt uploads is kept apart until the job is done; `store.files` says how.
"""

import logging
import secrets
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from urllib.parse import quote

from machineshop.blobs import Storage
from machineshop.blobs.base import Blob, BlobMissing
from machineshop.blobs.layout import FILES, new_file_key
from machineshop.errors import InvalidRequest, MachineshopError, NotFound, PayloadTooLarge
from machineshop.ids import new_id
from machineshop.models import ApiKey, StoredFile, Volume
from machineshop.services.file_names import MAX_NAME_LENGTH, NotAJobsFile, check_file_name, job_of_upload
from machineshop.services.leftovers import Leftovers
from machineshop.services.signatures import check_signature, signed_path
from machineshop.store import files as store
from machineshop.store.database import Database
from machineshop.store.files import AttemptId, FileRecord

log = logging.getLogger(__name__)

# Larger ones go in parts.
FILE_LIMIT_BYTES = 10 * 1024**3
# How long after the request an upload may begin.
URL_LIFETIME_SECONDS = 3600
_OPEN_TRIES = 3


class FileService:
    """The files of all projects. Every operation takes the project first, or a key, which says whose it is."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        base_url: Callable[[], str],
        *,
        clock: Callable[[], float] = time.time,
        limit_bytes: int = FILE_LIMIT_BYTES,
        storage_is_shared: bool = False,
    ) -> None:
        self._database = database
        self._blobs = storage.blobs
        self._uploads = storage.uploads
        self._base_url = base_url
        self._clock = clock
        self._limit_bytes = limit_bytes
        self.leftovers = Leftovers(database, storage, clock, shared=storage_is_shared)
        self._signing_key: bytes | None = None

    async def upload_url(
        self,
        key: ApiKey,
        name: str,
        *,
        request_id: str | None = None,
        attempt_token: str | None = None,
        base_url: str | None = None,
    ) -> str:
        """Where the bytes of a file may be put, without a key, within `URL_LIFETIME_SECONDS`.

        Arguments:
            key: Who asks. A worker's uploads only files of jobs that its replica holds.
            name: The file's name; a worker's begins with the job's id and a hyphen.
            request_id: The job whose output it will be: nobody sees it before the job is done. None: a user's file is
                visible at once, a worker's is an output of the job that it is named after.
            attempt_token: Of the attempt that has made it; None: the attempt that the job is in.
            base_url: Scheme, host and port under which the client reaches us; None: those that are configured.

        Raises:
            InvalidRequest: The name cannot be a file's, or there is a token and no job.
            NotAJobsFile: A worker's key, and the file belongs to no job.
            NotFound: The project has no such job.
            StaleAttempt: The job is not, or no longer, in the hands of whoever asks.
        """
        attempt = await self.attempt_of(key, name, request_id, attempt_token)
        expires = int(self._clock()) + URL_LIFETIME_SECONDS
        path = signed_path(await self.signing_key(), key.project_id, name, expires, attempt)
        return (base_url or self._base_url()).rstrip("/") + path

    async def attempt_of(
        self, key: ApiKey, name: str, request_id: str | None, attempt_token: str | None
    ) -> AttemptId | None:
        """Whose output a file will be; None: nobody's. Arguments and errors are those of `upload_url`."""
        check_file_name(name)
        if attempt_token is not None and request_id is None:
            raise InvalidRequest("An 'attempt_token' goes with the 'request_id' of its job.", param="request_id")
        job_id = job_of_upload(key.scope, name, request_id)
        if job_id is None:
            return None
        try:
            return await self._database.read(
                store.held_attempt,
                key.project_id,
                job_id,
                deployment_id=key.deployment_id,
                replica_id=key.replica_id,
                token=attempt_token,
            )
        except NotFound:
            if request_id is None:
                raise NotAJobsFile(name=name) from None  # the name only looked as if it were a job's
            raise

    def file_url(self, name: str) -> str:
        """Where a file is read, under the address by which workers know the platform: what a job's input names."""
        return f"{self._base_url().rstrip('/')}/v1/storage/{quote(name)}"

    async def receive(
        self,
        project_id: str,
        name: str,
        query: Mapping[str, str],
        parts: AsyncIterable[bytes],
        length: int | None = None,
    ) -> StoredFile:
        """Take a file's bytes from a signed URL; it is there, in the place of an older one, once they are on disk.

        That of an attempt is there once the attempt's result is stored, and never if that does not come to pass.

        Arguments:
            project_id: Whose file it is, as the URL says.
            name: The file's name, as the URL says.
            query: The URL's query, with `expires` and `signature`, and `job` and `attempt` where it is an output.
            parts: The bytes in pieces of any size.
            length: How many bytes there will be, if that is known.

        Raises:
            SignatureInvalid: We did not sign this URL, or too long ago.
            StaleAttempt: The attempt is over; nothing was kept.
            VolumeSealed: It would be a file of a volume that is settled; nothing was kept.
            PayloadTooLarge: The file is too large; nothing was kept.
            DiskFull: There is no room; nothing was kept.
        """
        attempt = check_signature(await self.signing_key(), project_id, name, query, self._clock())
        if length is not None and length > self._limit_bytes:
            raise PayloadTooLarge(what=f"'{name}'", limit_bytes=self._limit_bytes, mend="Send it in several files.")
        if attempt is not None:  # what comes too late already need not be taken in
            await self._database.read(store.queue_of_attempt, project_id, attempt)
        return await self._take(project_id, name, parts, self._limit_bytes, attempt=attempt)

    async def copy(
        self, volume: Volume, name: str, parts: AsyncIterable[bytes], limit_bytes: int, origin_tag: str
    ) -> StoredFile:
        """Take a file's bytes from the origin of a version of a volume.

        Arguments:
            volume: Whose version is being filled.
            name: The file's name, with the version's prefix.
            parts: The bytes in pieces of any size.
            limit_bytes: How many there may be.
            origin_tag: The object that they are of, as `blobs.origin.tag_of` says it.

        Raises:
            NotFound: The volume is gone; nothing was kept.
            VolumeSealed: The version is not being filled any more; nothing was kept.
            PayloadTooLarge: There are more bytes; nothing was kept.
            DiskFull: There is no room; nothing was kept.
        """
        of = volume.project_id
        return await self._take(of, name, parts, limit_bytes, copied_into=volume.id, origin_tag=origin_tag)

    async def _take(
        self,
        project_id: str,
        name: str,
        parts: AsyncIterable[bytes],
        limit_bytes: int,
        *,
        attempt: AttemptId | None = None,
        copied_into: str | None = None,
        origin_tag: str | None = None,
    ) -> StoredFile:
        upload = await self._uploads.create(f"{FILES}/{project_id}", new_id())
        try:
            await upload.append(parts, limit_bytes)
            etag = upload.digest.removeprefix("sha256:")
            file = StoredFile(
                project_id=project_id,
                name=name,
                size=upload.size,
                etag=etag,
                created_at=self._clock(),
                digest=etag,
                origin_tag=origin_tag,
            )
            await self.keep(file, upload.publish, attempt, upload.key, copied_into)
            return file
        except BaseException:
            await upload.discard()
            raise

    async def keep(
        self,
        file: StoredFile,
        publish: Callable[[str], Awaitable[None]],
        attempt: AttemptId | None,
        key: str | None = None,
        copied_into: str | None = None,
    ) -> None:
        """Make an upload's bytes those of a file; what was there under its name is gone then.

        Arguments:
            file: What it is to be.
            publish: Makes the bytes the blob of a key.
            attempt: Whose output it is; None: nobody's.
            key: The blob's, where there is no choice any more.
            copied_into: The id of the volume into which it is copied; None: it was uploaded.

        Raises:
            StaleAttempt: The attempt is over.
            VolumeSealed: It would be a file of a volume that is settled.
            DiskFull: There is no room.
        """
        blob_key = key or new_file_key()
        # Where there is no choice of the key, another request may have stored the same.
        async with self.leftovers.in_flight([blob_key], removed=key is None):
            await publish(blob_key)
            replaced = await self._store(FileRecord(file, blob_key), attempt, copied_into)
        if replaced is not None and replaced != blob_key:
            await self.leftovers.discard([replaced])

    async def find(self, project_id: str, name: str) -> StoredFile:
        """What is known of a file.

        Raises:
            NotFound: The project has no such file.
        """
        return (await self._record(project_id, name)).file

    async def open(self, project_id: str, name: str) -> tuple[StoredFile, Blob]:
        """A file for reading: what was opened stays whole, also when another upload replaces it meanwhile.

        Raises:
            NotFound: The project has no such file.
        """
        for _ in range(_OPEN_TRIES):
            record = await self._record(project_id, name)
            try:
                return record.file, await self._blobs.open(record.blob_key)
            except BlobMissing:
                continue  # replaced between the two steps
        log.error("files.bytes_missing project_id=%s name=%s", project_id, name)
        raise MachineshopError

    async def signed_url(self, project_id: str, name: str, content_type: str, disposition: str) -> str | None:
        """Where a file may be read for a few minutes without a key, under these headers; None: here alone.

        Raises:
            NotFound: The project has no such file.
        """
        if not self._blobs.signs:
            return None
        record = await self._record(project_id, name)
        return await self._blobs.signed_url(record.blob_key, content_type, disposition)

    async def delete(self, project_id: str, name: str) -> None:
        """Remove a file.

        Raises:
            NotFound: The project has no such file.
            VolumeSealed: It is a volume's, and stays as long as that.
        """
        blob_key = await self._database.write(store.remove_file, project_id, name)
        if blob_key is None:
            raise NotFound(what="file", id=name[:MAX_NAME_LENGTH])
        await self.leftovers.remove([blob_key])

    async def clean(self, now: float) -> int:
        """Remove files of attempts that are over and of jobs that are gone, and what crashes left; returns how many."""
        return await self.leftovers.clean(now)

    async def _store(self, record: FileRecord, attempt: AttemptId | None, copied_into: str | None) -> str | None:
        """Keep a file's row; returns the blob that it had before."""
        if attempt is None:
            return await self._database.write(store.put_file, record, copied_into)
        queue = await self._database.read(store.queue_of_attempt, record.file.project_id, attempt)
        return await self._database.write_in_queue(queue, store.put_attempt_file, attempt, record)

    async def _record(self, project_id: str, name: str) -> FileRecord:
        record = await self._database.read_briefly(store.find_file, project_id, name)
        if record is None:
            raise NotFound(what="file", id=name[:MAX_NAME_LENGTH])
        return record

    async def signing_key(self) -> bytes:
        """The secret of the upload URLs; made when it is first needed."""
        if self._signing_key is None:
            key = await self._database.read(store.find_signing_key)
            if key is None:
                key = await self._database.write(store.ensure_signing_key, secrets.token_hex(32))
            self._signing_key = bytes.fromhex(key)
        return self._signing_key
