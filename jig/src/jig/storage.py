"""Files into the platform's object storage."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from jig.client import Client

CHUNK_BYTES = 256 * 1024


def upload_file(client: Client, path: Path, progress: Callable[[int], None]) -> str:
    """Store a file and return its URL on the platform, which workers with a key can read.

    Args:
        client: the platform.
        path: the file.
        progress: called with the number of bytes that have just gone out.

    Raises:
        PlatformError: the platform refused it.
    """
    # Two files of one name must not overwrite each other, and the worker may want the suffix.
    filename = f"{uuid.uuid4().hex[:12]}-{path.name}"
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
