"""Bytes: whole blobs by key, and uploads on their way to become blobs."""

from pathlib import Path

from machineshop.blobs.base import BlobStore
from machineshop.blobs.disk import DiskThreads
from machineshop.blobs.local import LocalBlobs
from machineshop.blobs.parts import Parts
from machineshop.blobs.uploads import Uploads

__all__ = ["BlobStore", "Storage", "Uploads"]


class Storage:
    """Blobs, uploads and the threads that work on them, in one data directory (see `blobs.layout`)."""

    def __init__(self, data_directory: Path) -> None:
        self._threads = DiskThreads()
        self.blobs: BlobStore = LocalBlobs(data_directory / "blobs", self._threads)
        self.uploads = Uploads(data_directory / "uploads", self._threads)
        self.parts = Parts(data_directory / "uploads", self.uploads, self._threads)

    def close(self) -> None:
        """Finish what was begun and end the threads."""
        self._threads.close()
