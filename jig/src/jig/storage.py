"""Files into the platform's object storage, and where they are in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from jig.client import Client
from jig.contexts import is_same_host
from jig.errors import UsageError

CHUNK_BYTES = 256 * 1024
DIGEST_LETTERS = 24  # 96 bits: no two files of a project will ever share them
STORAGE_PATHS = ("/v1/storage/", "/v1/deployments/storage/")  # one place under two names


@dataclass(frozen=True)
class StoredFile:
    """A file in the platform's storage.

    Args:
        path: of its URL on the platform.
        filename: the last part of its name, for a copy on this machine.
    """

    path: str
    filename: str


def stored_file(named: str, base_url: str) -> StoredFile:
    """The file of a URL, or of a name in the storage.

    Only its path is taken from a URL: the key is sent to the platform at `base_url`, and nowhere else.

    Raises:
        UsageError: the URL is of another host, or of something else than a file.
    """
    path = f"{STORAGE_PATHS[0]}{quote(named)}"
    if "://" in named:
        if not is_same_host(named, base_url):
            hint = "Your key is sent to no other host. `jig context use` changes the platform."
            raise UsageError(f"{named} is not at the platform of {base_url}.", hint=hint)
        path = urlsplit(named).path.removeprefix(urlsplit(base_url).path)
    filename = unquote(path).rpartition("/")[2]
    if not path.startswith(STORAGE_PATHS) or filename in ("", ".", ".."):
        raise UsageError(f"{named!r} names no file of the platform's storage.", hint="Files are at /v1/storage/NAME.")
    return StoredFile(path, filename)


def upload_file(client: Client, path: Path, progress: Callable[[int], None]) -> str:
    """Store a file and return its URL on the platform, which workers with a key can read.

    Args:
        client: the platform.
        path: the file.
        progress: called with the number of bytes that have just gone out.

    Raises:
        PlatformError: the platform refused it.
    """
    # Two files of one name must not overwrite each other, and the worker may want the suffix. The same file has the
    # same URL each time, so that a job that is submitted twice has the same payload.
    filename = f"{digest_of(path)[:DIGEST_LETTERS]}-{path.name}"
    answer = client.post("/v1/storage/upload-request", {"filename": filename})
    upload = answer["upload_url"]
    client.send(
        upload.get("method") or "PUT",
        upload["url"],
        chunks(path, progress),
        length=path.stat().st_size,
        key=upload["url"].startswith("/"),
        headers=upload.get("headers"),
    )
    # Workers may know the platform by another address than we do; the platform says which one.
    return str(answer.get("url") or client.url(f"/v1/storage/{quote(filename)}"))


def chunks(path: Path, progress: Callable[[int], None]) -> Iterator[bytes]:
    """The file's bytes in pieces."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
            progress(len(chunk))


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
