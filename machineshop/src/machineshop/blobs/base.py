"""What every store of whole blobs offers, in the platform's words; `blobs.local` is the one on this machine's disk."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import msgspec

from machineshop.blobs.ranges import ByteRange

# Large enough that the cost of a step (a thread, a system call, a send) does not show, small enough to stay in cache.
CHUNK_BYTES = 1024 * 1024


class BlobMissing(Exception):
    """The store has no blob under this key. Services turn it into the answer that fits."""


class BlobEntry(msgspec.Struct, frozen=True):
    """One blob of a listing. `modified_at` is in seconds since the epoch."""

    key: str
    modified_at: float


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
    """Whole blobs by key."""

    async def publish(self, path: Path, key: str) -> None:
        """Make a local file the blob of this key at once and durably, replacing what was there; the file is gone after.

        Raises:
            DiskFull: There is no room; nothing was changed.
        """

    async def open(self, key: str) -> Blob:
        """Open a blob.

        Raises:
            BlobMissing: There is none.
        """
        ...

    async def size(self, key: str) -> int | None:
        """A blob's size in bytes; None: there is none."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a blob, if there is one."""

    async def entries(self, prefix: str) -> list[BlobEntry]:
        """All blobs whose keys begin with `prefix` and a slash."""
        ...
