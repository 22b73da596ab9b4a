"""Which storage it is, by the settings."""

from pathlib import Path

from machineshop.blobs import Storage
from machineshop.config import parse_storage_url


def open_storage(directory: Path, url: str | None, endpoint: str | None = None, *, redirects: bool = True) -> Storage:
    """The storage at `url`, or in a directory where there is none; arguments as for `BucketStorage`."""
    if url is None:
        return Storage(directory)
    # What speaks to object storages takes a moment and some megabytes to load.
    from machineshop.blobs.bucket_storage import BucketStorage  # noqa: PLC0415

    return BucketStorage(parse_storage_url(url), endpoint, redirects=redirects)
