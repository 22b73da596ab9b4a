"""Object storage for a project's files: upload by a signed URL, read, delete."""

import logging
import secrets
import time
import unicodedata
from collections.abc import AsyncIterable, Callable, Mapping
from urllib.parse import quote

from machineshop.blobs import Storage
from machineshop.blobs.base import Blob, BlobMissing
from machineshop.blobs.layout import FILES, new_file_key
from machineshop.blobs.uploads import Upload
from machineshop.errors import InvalidRequest, MachineshopError, NotFound, PayloadTooLarge
from machineshop.ids import new_id
from machineshop.models import StoredFile
from machineshop.services.signatures import check_signature, signed_path
from machineshop.store import files as store
from machineshop.store.database import Database
from machineshop.store.files import FileRecord

log = logging.getLogger(__name__)

# Larger ones go in parts.
FILE_LIMIT_BYTES = 10 * 1024**3
MAX_NAME_LENGTH = 512
# How long after the request an upload may begin.
URL_LIFETIME_SECONDS = 3600
# Longer than any upload takes, and long enough for an operator to look at what a crash left.
LEFTOVER_SECONDS = 24 * 3600
# Control characters, separators of lines and paragraphs, and what is no character.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Zl", "Zp", "Cs"})
_OPEN_TRIES = 3
_BATCH = 500


class FileService:
    """The files of all projects. Every operation takes the project first."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        base_url: Callable[[], str],
        *,
        clock: Callable[[], float] = time.time,
        limit_bytes: int = FILE_LIMIT_BYTES,
    ) -> None:
        self._database = database
        self._blobs = storage.blobs
        self._uploads = storage.uploads
        self._base_url = base_url
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._signing_key: bytes | None = None

    async def upload_url(self, project_id: str, name: str, base_url: str | None = None) -> str:
        """Where the bytes of a file may be put, without a key, within `URL_LIFETIME_SECONDS`.

        Arguments:
            project_id: Whose file it is.
            name: The file's name.
            base_url: Scheme, host and port under which the client reaches us; None: those that are configured.

        Raises:
            InvalidRequest: The name cannot be a file's.
        """
        check_file_name(name)
        expires = int(self._clock()) + URL_LIFETIME_SECONDS
        path = signed_path(await self._key(), project_id, name, expires)
        return (base_url or self._base_url()).rstrip("/") + path

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

        Arguments:
            project_id: Whose file it is, as the URL says.
            name: The file's name, as the URL says.
            query: The URL's query, with `expires` and `signature`.
            parts: The bytes in pieces of any size.
            length: How many bytes there will be, if that is known.

        Raises:
            SignatureInvalid: We did not sign this URL, or too long ago.
            PayloadTooLarge: The file is too large; nothing was kept.
            DiskFull: There is no room; nothing was kept.
        """
        check_signature(await self._key(), project_id, name, query, self._clock())
        if length is not None and length > self._limit_bytes:
            raise PayloadTooLarge(what=f"'{name}'", limit_bytes=self._limit_bytes, mend="Send it in several files.")
        upload = await self._uploads.create(f"{FILES}/{project_id}", new_id())
        try:
            await upload.append(parts, self._limit_bytes)
            return await self._keep(project_id, name, upload)
        except BaseException:
            await upload.discard()
            raise

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

    async def delete(self, project_id: str, name: str) -> None:
        """Remove a file.

        Raises:
            NotFound: The project has no such file.
        """
        blob_key = await self._database.write(store.remove_file, project_id, name)
        if blob_key is None:
            raise NotFound(what="file", id=name[:MAX_NAME_LENGTH])
        await self._blobs.delete(blob_key)

    async def clean(self, now: float) -> int:
        """Remove what crashes left behind: uploads that broke off, blobs that no file has; returns how many."""
        before = now - LEFTOVER_SECONDS
        removed = len(await self._uploads.remove_older(FILES, before))
        old = [entry.key for entry in await self._blobs.entries(FILES) if entry.modified_at < before]
        for at in range(0, len(old), _BATCH):
            batch = old[at : at + _BATCH]
            used = await self._database.read(store.used_blob_keys, batch)
            for key in batch:
                if key not in used:
                    await self._blobs.delete(key)
                    removed += 1
        return removed

    async def _keep(self, project_id: str, name: str, upload: Upload) -> StoredFile:
        etag = upload.digest.removeprefix("sha256:")
        file = StoredFile(project_id=project_id, name=name, size=upload.size, etag=etag, created_at=self._clock())
        blob_key = new_file_key()
        await self._blobs.publish(upload.path, blob_key)
        try:
            replaced = await self._database.write(store.put_file, FileRecord(file, blob_key))
        except Exception:
            await self._blobs.delete(blob_key)
            raise
        if replaced is not None:
            await self._blobs.delete(replaced)
        return file

    async def _record(self, project_id: str, name: str) -> FileRecord:
        record = await self._database.read(store.find_file, project_id, name)
        if record is None:
            raise NotFound(what="file", id=name[:MAX_NAME_LENGTH])
        return record

    async def _key(self) -> bytes:
        if self._signing_key is None:
            key = await self._database.read(store.find_signing_key)
            if key is None:
                key = await self._database.write(store.ensure_signing_key, secrets.token_hex(32))
            self._signing_key = bytes.fromhex(key)
        return self._signing_key


def check_file_name(name: str) -> None:
    """Refuse what cannot be a file's name.

    Raises:
        InvalidRequest: It is empty or too long, or clients and proxies would read another path from it.
    """
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise InvalidRequest(f"A file's name has 1 to {MAX_NAME_LENGTH} characters, not {len(name)}.", param="filename")
    if any(unicodedata.category(character) in _UNSAFE_CATEGORIES for character in name):
        raise InvalidRequest("A file's name holds no control characters or line breaks.", param="filename")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise InvalidRequest(
            "A file's name neither begins nor ends with '/', and no part of it is empty, '.' or '..'.", param="filename"
        )
