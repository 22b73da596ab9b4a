"""Large files in parts: begun, sent part by part by signed URLs, put together in the end.

An upload lives in the storage alone, so that it can go on after a restart, and at another server with the same storage;
an object storage takes the parts itself. It becomes visible as a whole, and as `FileService` has it: at once, or with
its job's result.
"""

import hashlib
import time
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from functools import partial

import msgspec

from machineshop.blobs import Storage
from machineshop.blobs.base import Part, PartMissing, UploadHeld
from machineshop.blobs.layout import MULTIPART
from machineshop.errors import InvalidRequest, NotFound, PayloadTooLarge, StaleAttempt, Unavailable
from machineshop.ids import is_id, new_id
from machineshop.models import ApiKey, Scope, StoredFile
from machineshop.services.files import FILE_LIMIT_BYTES, FileService
from machineshop.services.signatures import check_part_signature, signed_part_path
from machineshop.store import files as store
from machineshop.store import projects
from machineshop.store.database import Database
from machineshop.store.files import AttemptId

# As many as object stores elsewhere take.
MAX_PARTS = 10_000
# A file in parts; a disk is full before.
MULTIPART_LIMIT_BYTES = 1024**4
# Its URLs hold for longer than those of a file in one piece: sending hundreds of gigabytes takes hours.
LIFETIME_SECONDS = 24 * 3600
# Nobody can send a part any more by then, and whoever completes one has had as long again.
EXPIRY_SECONDS = 2 * LIFETIME_SECONDS


class Facts(msgspec.Struct, omit_defaults=True):
    """What an upload is to become, and what has become of it.

    Arguments:
        name: The file's name.
        parts_count: How many parts there will be at most.
        job_id: Whose output it is, and `attempt` says of which attempt.
        size: Of the file, once it has been put together.
        completed_at: When it was; in seconds since the epoch.
    """

    name: str
    parts_count: int
    job_id: str | None = None
    attempt: int = 0
    size: int = 0
    completed_at: float | None = None

    @property
    def attempt_id(self) -> AttemptId | None:
        """Whose output it is; None: nobody's."""
        return None if self.job_id is None else AttemptId(self.job_id, self.attempt)


_FACTS = msgspec.json.Decoder(Facts)


class Completed(msgspec.Struct, frozen=True):
    """A file that has been put together. `size` is in bytes, `completed_at` in seconds since the epoch."""

    name: str
    size: int
    completed_at: float


class MultipartService:
    """The uploads in parts of all projects."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        files: FileService,
        base_url: Callable[[], str],
        *,
        clock: Callable[[], float] = time.time,
        limit_bytes: int = FILE_LIMIT_BYTES,
    ) -> None:
        self._database = database
        self._parts = storage.parts
        self._uploads = storage.uploads
        self._files = files
        self._base_url = base_url
        self._clock = clock
        self._limit_bytes = limit_bytes

    async def begin(
        self,
        key: ApiKey,
        name: str,
        parts_count: int,
        *,
        base_url: str | None = None,
        request_id: str | None = None,
        attempt_token: str | None = None,
    ) -> tuple[str, list[str]]:
        """Begin an upload; returns its id, and for each part the URL by which its bytes come in, without a key.

        Arguments:
            key: Who asks.
            name: The file's name.
            parts_count: How many parts there will be at most.
            base_url: As for `FileService.upload_url`.
            request_id: As for `FileService.upload_url`, and so is `attempt_token`.

        Raises:
            InvalidRequest: The name cannot be a file's, or there are too many parts.
            NotAJobsFile, NotFound, StaleAttempt: As `FileService.upload_url` does.
        """
        if not 1 <= parts_count <= MAX_PARTS:
            raise InvalidRequest(f"A file comes in 1 to {MAX_PARTS} parts, not {parts_count}.", param="parts_count")
        attempt = await self._files.attempt_of(key, name, request_id, attempt_token)
        facts = Facts(name, parts_count)
        if attempt is not None:
            facts.job_id, facts.attempt = attempt
        upload_id = new_id()
        await self._write(key.project_id, upload_id, facts)
        urls = await self._parts.part_urls(_group(key.project_id), upload_id, parts_count, LIFETIME_SECONDS)
        if urls is not None:
            return upload_id, urls
        signing_key, expires = await self._files.signing_key(), int(self._clock()) + LIFETIME_SECONDS
        address = (base_url or self._base_url()).rstrip("/")
        return upload_id, [
            address + signed_part_path(signing_key, key.project_id, upload_id, number, expires)
            for number in range(1, parts_count + 1)
        ]

    async def receive(
        self,
        project_id: str,
        upload_id: str,
        number: int,
        query: Mapping[str, str],
        parts: AsyncIterable[bytes],
        length: int | None = None,
    ) -> str:
        """Take one part's bytes from a signed URL; returns its ETag. It may be sent again, with other bytes too.

        Raises:
            SignatureInvalid: We did not sign this URL, or too long ago.
            NotFound: The upload has ended, or the project is gone.
            StaleAttempt: The attempt is over; the upload is removed.
            PayloadTooLarge: The part is too large.
            DiskFull: There is no room.
        """
        check_part_signature(await self._files.signing_key(), project_id, upload_id, number, query, self._clock())
        if length is not None and length > self._limit_bytes:
            raise PayloadTooLarge(what="The part", limit_bytes=self._limit_bytes, mend="Send the file in more parts.")
        facts = await self._read(project_id, upload_id)
        if facts.completed_at is not None:
            raise NotFound(what="upload", id=upload_id)
        await self._check_owner(project_id, upload_id, facts)
        return await self._parts.receive(_group(project_id), upload_id, number, parts, self._limit_bytes)

    async def complete(self, key: ApiKey, name: str, upload_id: str, parts: Sequence[Part]) -> Completed:
        """Put a file together from its parts, in the order of their numbers; asked again, it answers the same.

        Raises:
            NotFound: There is no such upload of a file of this name.
            InvalidRequest: A part has not come, or the numbers make no sense.
            StaleAttempt: The attempt that it is for is over, or it is another's; nothing was kept.
            PayloadTooLarge: The file is too large.
            DiskFull: There is no room.
            Unavailable: Another request is just doing this.
        """
        facts = await self._find(key, name, upload_id)
        if facts.completed_at is None:
            facts = await self._complete_alone(key.project_id, upload_id, parts)
        return Completed(name, facts.size, facts.completed_at or 0.0)

    async def abort(self, key: ApiKey, name: str, upload_id: str) -> None:
        """Give an upload up.

        Raises:
            NotFound: There is no such upload of a file of this name.
        """
        facts = await self._find(key, name, upload_id, ended=True)
        await self._parts.discard(_group(key.project_id), upload_id, keep_facts=facts.completed_at is not None)

    async def clean(self, now: float) -> int:
        """Remove what is too old to go on with, and what attempts that are over or projects left; returns how many."""
        removed = len(await self._uploads.remove_older(MULTIPART, now - EXPIRY_SECONDS))
        for group in await self._parts.groups(MULTIPART):
            project_id = group.removeprefix(f"{MULTIPART}/")
            for upload_id, text in (await self._parts.all_facts(group)).items():
                facts = _FACTS.decode(text)
                if facts.completed_at is None and not await self._is_alive(project_id, upload_id, facts):
                    removed += 1
        return removed

    async def _complete_alone(self, project_id: str, upload_id: str, parts: Sequence[Part]) -> Facts:
        try:
            async with self._parts.hold(_group(project_id), upload_id):
                facts = await self._read(project_id, upload_id)
                if facts.completed_at is None:
                    await self._complete(project_id, upload_id, facts, parts)
                return facts
        except UploadHeld:
            raise Unavailable("Another request is just putting this upload together: ask again.") from None
        except FileNotFoundError:  # another one has ended it, perhaps well
            facts = await self._read(project_id, upload_id)
            if facts.completed_at is None:
                raise NotFound(what="upload", id=upload_id) from None
            return facts

    async def _complete(self, project_id: str, upload_id: str, facts: Facts, parts: Sequence[Part]) -> None:
        group = _group(project_id)
        _check_numbers(parts, facts.parts_count)
        await self._check_attempt(project_id, upload_id, facts)
        try:
            size = await self._parts.size(group, upload_id, parts)
        except PartMissing as missing:
            raise InvalidRequest(
                f"Part {missing.number} has not come with this 'etag': send it, and complete the upload then.",
                param="parts",
            ) from None
        if size > MULTIPART_LIMIT_BYTES:
            raise PayloadTooLarge(
                what=f"'{facts.name}'", limit_bytes=MULTIPART_LIMIT_BYTES, mend="Send it in several files."
            )
        now = self._clock()
        file = StoredFile(project_id=project_id, name=facts.name, size=size, etag=_etag(parts), created_at=now)
        publish = partial(self._parts.publish, group, upload_id, parts)
        try:
            await self._files.keep(file, publish, facts.attempt_id, await self._parts.key(group, upload_id))
        except StaleAttempt:
            await self._parts.discard(group, upload_id)
            raise
        facts.size, facts.completed_at = size, now
        await self._write(project_id, upload_id, facts)
        await self._parts.discard(group, upload_id, keep_facts=True)

    async def _find(self, key: ApiKey, name: str, upload_id: str, *, ended: bool = False) -> Facts:
        """An upload that this key may end. A worker's key ends those of its replica's jobs alone."""
        facts = await self._read(key.project_id, upload_id)
        if facts.name != name:
            raise NotFound(what="upload", id=upload_id)
        if key.scope is Scope.WORKER and not ended:
            mine = await self._files.attempt_of(key, name, facts.job_id, None)
            if mine != facts.attempt_id:
                raise StaleAttempt(state="in another attempt's hands")
        return facts

    async def _check_attempt(self, project_id: str, upload_id: str, facts: Facts) -> None:
        if facts.attempt_id is not None:
            try:
                await self._database.read(store.queue_of_attempt, project_id, facts.attempt_id)
            except StaleAttempt:
                await self._parts.discard(_group(project_id), upload_id)
                raise

    async def _check_owner(self, project_id: str, upload_id: str, facts: Facts) -> None:
        """Remove an upload, and refuse it, whose project is gone or whose attempt is over."""
        try:
            await self._database.read(projects.check, project_id)
        except NotFound:
            await self._parts.discard(_group(project_id), upload_id)
            raise
        await self._check_attempt(project_id, upload_id, facts)

    async def _is_alive(self, project_id: str, upload_id: str, facts: Facts) -> bool:
        try:
            await self._check_owner(project_id, upload_id, facts)
        except (NotFound, StaleAttempt):
            return False
        return True

    async def _read(self, project_id: str, upload_id: str) -> Facts:
        text = await self._parts.facts(_group(project_id), upload_id) if is_id(upload_id) else None
        if text is None:
            raise NotFound(what="upload", id=upload_id[:100])
        return _FACTS.decode(text)

    async def _write(self, project_id: str, upload_id: str, facts: Facts) -> None:
        await self._parts.write_facts(_group(project_id), upload_id, msgspec.json.encode(facts))


def _check_numbers(parts: Sequence[Part], parts_count: int) -> None:
    numbers = [part.number for part in parts]
    if not numbers or numbers != sorted(set(numbers)) or numbers[0] < 1 or numbers[-1] > parts_count:
        raise InvalidRequest(
            f"'parts' are to have different 'part_number's from 1 to {parts_count}, in ascending order.", param="parts"
        )


def _etag(parts: Sequence[Part]) -> str:
    """Of the whole, without reading it again: the digest of the parts' digests, as object stores have it."""
    digests = "".join(part.etag for part in parts).encode()
    return f"{hashlib.sha256(digests).hexdigest()}-{len(parts)}"


def _group(project_id: str) -> str:
    return f"{MULTIPART}/{project_id}"
