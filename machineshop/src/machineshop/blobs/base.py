"""What every store of bytes offers, in the platform's words.

`blobs.local` and its neighbours keep them on this machine's disk, `blobs.objects` and its neighbours in a bucket of an
object storage. One suite of tests holds both to what is said here.
"""

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from machineshop.blobs.ranges import ByteRange

# Large enough that the cost of a step (a thread, a system call, a send) does not show, small enough to stay in cache.
CHUNK_BYTES = 1024 * 1024


class BlobMissing(Exception):
    """The store has no blob under this key. Services turn it into the answer that fits."""


class UploadHeld(Exception):
    """Another request or process is writing to the upload. Services turn it into the answer that fits."""


class DigestDiffers(Exception):
    """The bytes of an upload have another digest than was wanted: nothing was kept."""

    def __init__(self, actual: str) -> None:
        super().__init__(actual)
        self.actual = actual


class PartMissing(Exception):
    """No part of this number and ETag has come. Services turn it into the answer that fits."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class BlobEntry(msgspec.Struct, frozen=True):
    """One blob of a listing. `modified_at` is in seconds since the epoch."""

    key: str
    modified_at: float


class Part(NamedTuple):
    """A part of an upload as its uploader knows it: its number, and the ETag that it was answered with."""

    number: int
    etag: str


class Blob(Protocol):
    """A blob opened for reading: what was opened is read to its end, also when the blob is deleted meanwhile."""

    @property
    def size(self) -> int:
        """The whole blob's size in bytes."""
        ...

    def chunks(self, wanted: ByteRange | None = None) -> AsyncIterator[bytes]:
        """The bytes, or a range of them, in chunks of about `CHUNK_BYTES`; closes the blob at the end."""
        ...

    def windows(self, wanted: ByteRange | None = None) -> AsyncIterator[memoryview]:
        """`chunks` for whoever hands the bytes to a plain socket unread: views that may be of the disk's own pages.

        Reading them in this process would end it where the disk fails; a socket that is told to send them fails alone.
        """
        ...

    async def close(self) -> None:
        """Give it back unread."""


class BlobStore(Protocol):
    """Whole blobs by key. All of it may raise `StorageUnavailable` where the bytes are not on this machine."""

    signs: bool
    """Whether readers are sent to where the bytes are, by `signed_url`."""

    async def put_all(self, contents: Mapping[str, memoryview]) -> None:
        """Store small blobs whose bytes are all here, durably; for less than one after the other as uploads.

        Arguments:
            contents: The bytes by key. Nobody knows the keys yet: after an error some of them may be there.

        Raises:
            DiskFull: There is no room for all of them; none is there.
        """

    async def read_all(self, keys: Sequence[str]) -> list[bytes]:
        """The bytes of small blobs, in the order of their keys; for less than opening one after the other.

        Raises:
            BlobMissing: One of them is not there.
        """
        ...

    async def open(self, key: str) -> Blob:
        """Open a blob.

        Raises:
            BlobMissing: There is none.
        """
        ...

    async def size(self, key: str) -> int | None:
        """A blob's size in bytes; None: there is none."""
        ...

    async def signed_url(self, key: str, content_type: str, disposition: str | None = None) -> str | None:
        """Where anybody may read a blob for a few minutes; None: here alone, as `signs` says.

        Arguments:
            key: The blob's; whether it is there is not looked at.
            content_type: What the answer there is to call it.
            disposition: Its Content-Disposition there.
        """
        ...

    async def link(self, key: str, target: Path) -> bool:
        """Make `target` another name of a blob's bytes; False: they are not on that file system, or cannot have one.

        Raises:
            BlobMissing: There is none.
            OSError: The name is taken, or may not be made.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove a blob, if there is one."""

    async def entries(self, prefix: str) -> list[BlobEntry]:
        """All blobs whose keys begin with `prefix` and a slash."""
        ...


class Upload(Protocol):
    """Bytes on their way in. One caller at a time may append to it."""

    @property
    def size(self) -> int:
        """Bytes received so far."""
        ...

    @property
    def digest(self) -> str:
        """Of the bytes received so far, by whoever has received all of them in one process."""
        ...

    @property
    def key(self) -> str | None:
        """The key that it is to be published under, where its bytes lie there already; None: any."""
        ...

    def hold(self) -> AbstractAsyncContextManager[None]:
        """Keep others from writing to it, and know of what they have written.

        Raises:
            UploadHeld: Another one does.
            FileNotFoundError: It was finished or removed.
        """
        ...

    async def refresh(self) -> None:
        """Know of what other processes have written.

        Raises:
            FileNotFoundError: It was finished or removed.
        """

    async def hash_with(self, algorithm: str) -> None:
        """Take the digest with another hash, by its name in `hashlib`."""

    async def append(self, parts: AsyncIterable[bytes], limit_bytes: int | None = None) -> None:
        """Add what comes. When `parts` breaks off with an error, what came before it is kept.

        Arguments:
            parts: Bytes in pieces of any size.
            limit_bytes: How much may come.

        Raises:
            PayloadTooLarge: More came.
            DiskFull: There is no room; the upload was removed.
        """

    async def publish(self, key: str, digest: str | None = None) -> None:
        """Make it the blob of this key, at once and durably; the upload is gone then.

        Arguments:
            key: `self.key`, where there is one.
            digest: What it must have; None: whatever it has.

        Raises:
            DigestDiffers: It has another one; nothing was kept.
            FileNotFoundError: It was finished or removed by others.
            DiskFull: There is no room; nothing was changed.
        """

    async def discard(self) -> None:
        """Remove it."""


class Uploads(Protocol):
    """The unfinished uploads, in groups (whose they are)."""

    async def create(self, group: str, name: str) -> Upload:
        """Begin an upload.

        Raises:
            DiskFull: There is no room for it.
        """
        ...

    async def reopen(self, group: str, name: str) -> Upload | None:
        """Go on with an upload that an earlier process, or another server, began; None: there is none."""
        ...

    async def remove_older(self, kind: str, before: float) -> list[str]:
        """Remove uploads of all groups of a kind that nobody wrote to since `before`; returns their names.

        Arguments:
            kind: The first part of the groups.
            before: In seconds since the epoch.
        """
        ...


class PartUploads(Protocol):
    """The unfinished uploads in parts, in groups (whose they are); `facts` say what one is to become."""

    async def write_facts(self, group: str, upload_id: str, facts: bytes) -> None:
        """Keep what is known of an upload; the first time begins it.

        Raises:
            DiskFull: There is no room.
        """

    async def facts(self, group: str, upload_id: str) -> bytes | None:
        """What is known of an upload; None: there is none."""
        ...

    async def all_facts(self, group: str) -> dict[str, bytes]:
        """What is known of every upload of a group that has not ended, by their ids."""
        ...

    async def groups(self, kind: str) -> list[str]:
        """The groups that have uploads."""
        ...

    async def part_urls(self, group: str, upload_id: str, count: int, lifetime_seconds: int) -> list[str] | None:
        """Where the bytes of each part may be put; None: they are brought to `receive`."""
        ...

    async def receive(
        self, group: str, upload_id: str, number: int, parts: AsyncIterable[bytes], limit_bytes: int
    ) -> str:
        """Take a part's bytes, and put them on disk; returns their ETag.

        Raises:
            PayloadTooLarge: More came than may.
            DiskFull: There is no room.
        """
        ...

    def hold(self, group: str, upload_id: str) -> AbstractAsyncContextManager[None]:
        """Keep others from putting the same upload together.

        Raises:
            UploadHeld: Somebody does.
            FileNotFoundError: There is no such upload.
        """
        ...

    async def key(self, group: str, upload_id: str) -> str | None:
        """The key that it is to be published under, where its bytes lie there already; None: any."""
        ...

    async def size(self, group: str, upload_id: str, parts: Sequence[Part]) -> int:
        """The size of all of these parts together, in bytes.

        Raises:
            PartMissing: One has not come.
            FileNotFoundError: There is no such upload.
        """
        ...

    async def publish(self, group: str, upload_id: str, parts: Sequence[Part], key: str) -> None:
        """Make one blob of these parts; doing it again does no harm.

        Raises:
            InvalidRequest: These parts make no blob here.
            FileNotFoundError: There is no such upload.
            DiskFull: There is no room for it.
        """

    async def discard(self, group: str, upload_id: str, *, keep_facts: bool = False) -> None:
        """Remove an upload, or its parts alone: then it has ended, and its facts stay for a while."""
