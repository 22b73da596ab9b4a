"""The wheel of sprocket that goes into an image: the platform's own, kept in the project for builds without it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import urljoin

from jig.client import Client
from jig.errors import ImageError, NotFoundError, PlatformError, UnreachableError

INDEX_PATH = "/simple/sprocket/"
INDEX_JSON = "application/vnd.pypi.simple.v1+json"
WHEEL_PATTERN = re.compile(r"sprocket-[A-Za-z0-9.+_]+(-[A-Za-z0-9.+_]+)+\.whl")
WHEEL_BYTES_MAX = 64 * 1024**2


def sprocket_wheel(client: Client | None, folder: Path) -> Path:
    """The wheel in a folder, brought up to date where the platform can be asked.

    Args:
        client: the platform; None where there is no key for it.
        folder: where the wheel is kept.

    Raises:
        ImageError: there is none, neither here nor there.
    """
    if client is not None:
        try:
            return fetched(client, folder)
        except (UnreachableError, NotFoundError) as error:
            reason = error.message
    else:
        reason = "There is no API key for a platform."
    kept = sorted(folder.glob("sprocket-*.whl"))
    if not kept:
        hint = f"Start the platform, or put the wheel of sprocket that you want into {folder}."
        raise ImageError(f"An image needs sprocket, and no platform has one for it: {reason}", hint=hint)
    return kept[-1]


def fetched(client: Client, folder: Path) -> Path:
    """The platform's wheel, sent only where it is another than the one that is kept.

    Raises:
        PlatformError: what it sends is not what it says.
    """
    page = client.request("GET", INDEX_PATH, headers={"Accept": INDEX_JSON})
    try:
        entry = client.document(page)["files"][-1]
        filename, digest, url = str(entry["filename"]), str(entry["hashes"]["sha256"]), str(entry["url"])
    except (KeyError, IndexError, TypeError) as error:
        raise PlatformError("The platform's package index names no wheel of sprocket.") from error
    if not WHEEL_PATTERN.fullmatch(filename):
        raise PlatformError(f"The platform's package index names {filename!r}, which is no wheel of sprocket.")
    path = folder / filename
    try:
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            content = download(client, urljoin(client.url(INDEX_PATH), url), digest)
            for stale in folder.glob("sprocket-*.whl"):
                stale.unlink()
            path.write_bytes(content)
    except OSError as error:
        raise ImageError(f"Cannot write {path}: {error.strerror}.") from error
    return path


def download(client: Client, url: str, digest: str) -> bytes:
    """The bytes of a wheel.

    Raises:
        PlatformError: they are others than their digest says, or too many.
    """
    content = bytearray()
    with client.download(url) as coming:
        for chunk in coming.chunks:
            content += chunk
            if len(content) > WHEEL_BYTES_MAX:
                raise PlatformError(f"The wheel at {url} is larger than any of sprocket.")
    if hashlib.sha256(content).hexdigest() != digest:
        raise PlatformError(f"What came from {url} is not what the index names: its sha256 is another.")
    return bytes(content)
