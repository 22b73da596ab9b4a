"""Bytes: whole blobs by key, and uploads on their way to become blobs."""

from pathlib import Path

from machineshop.blobs.base import BlobStore, PartUploads, Uploads
from machineshop.blobs.disk import DiskThreads
from machineshop.blobs.local import LocalBlobs
from machineshop.blobs.parts import LocalParts
from machineshop.blobs.uploads import LocalUploads

__all__ = ["BlobStore", "Storage"]


class Storage:
    """Blobs, uploads and the threads that work on them; `blobs.layout` says where they lie.

    This is the one on this machine's disk; `blobs.bucket_storage` has the other.
    """

    blobs: BlobStore
    uploads: Uploads
    parts: PartUploads

    def __init__(self, directory: Path) -> None:
        self.threads = DiskThreads()
        blobs = LocalBlobs(directory / "blobs", self.threads)
        uploads = LocalUploads(directory / "uploads", blobs, self.threads)
        self.blobs, self.uploads = blobs, uploads
        self.parts = LocalParts(directory / "uploads", blobs, uploads, self.threads)

    async def check(self) -> None:
        """Find out whether it works; the data directory has seen to it."""

    async def ensure_id(self, _candidate: str) -> str | None:
        """What tells this storage from others, made where there is none; None: the data directory knows."""
        return None

    def close(self) -> None:
        """Finish what was begun and end the threads."""
        self.threads.close()
