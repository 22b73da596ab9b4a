"""Storage in a bucket: nothing of it lies on this machine."""

from machineshop.blobs import Storage
from machineshop.blobs.bucket import CONNECTIONS, Bucket
from machineshop.blobs.bucket_parts import BucketParts
from machineshop.blobs.disk import DiskThreads
from machineshop.blobs.objects import BucketBlobs
from machineshop.blobs.streams import BucketUploads
from machineshop.config import StorageUrl


class BucketStorage(Storage):
    """See `Storage`.

    Args:
        url: The bucket, and a prefix in it.
        endpoint: As clients reach it, where that is another than for the platform.
        redirects: Send readers there; otherwise the bytes pass through this process.

    Raises:
        BucketUnusable: The settings in the environment make no sense.
    """

    def __init__(self, url: StorageUrl, endpoint: str | None = None, *, redirects: bool = True) -> None:
        self._bucket = Bucket(url, endpoint)
        self.threads = DiskThreads(CONNECTIONS)
        self.blobs = BucketBlobs(self._bucket, self.threads, signs=redirects)
        self.uploads = BucketUploads(self._bucket, self.threads)
        self.parts = BucketParts(self._bucket, self.threads)

    async def check(self) -> None:
        """Do once each thing that the platform will want to do.

        Raises:
            BucketUnusable: The bucket does not let us.
        """
        await self.threads.run(self._bucket.check)

    async def ensure_id(self, candidate: str) -> str | None:
        """See `Storage`."""
        return await self.threads.run(self._bucket.ensure_id, candidate)
