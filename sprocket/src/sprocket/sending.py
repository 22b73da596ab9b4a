"""Puts pieces of files to signed URLs, straight from disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from .errors import PlatformAwayError
from .platform import describe

PUT_TIMEOUT = aiohttp.ClientTimeout(total=1800, sock_connect=10, sock_read=300)
CHUNK_BYTES = 1 << 20


class Piece(NamedTuple):
    """Some bytes of a file."""

    path: Path
    start_bytes: int
    size_bytes: int


class Target(NamedTuple):
    """Where to put bytes, as the platform says it."""

    url: str
    method: str
    headers: Mapping[str, str]

    @classmethod
    def read(cls, target: Any) -> Target:
        """Read it from an answer.

        Raises:
            PlatformAwayError: it is no target.
        """
        if not isinstance(target, dict) or not isinstance(target.get("url"), str):
            raise PlatformAwayError("the answer to the upload request names no URL")
        headers = target.get("headers")
        return cls(target["url"], target.get("method") or "PUT", headers if isinstance(headers, dict) else {})


class Sender:
    """Sends. Use inside a running event loop; `close` it."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def put(self, target: Target, piece: Piece) -> tuple[int, bytes, str]:
        """Send a piece of a file; give the answer's status and body, and the ETag without its quotes.

        Raises:
            PlatformAwayError: there is no answer.
            OSError: the file cannot be read.
        """
        # The URL is signed: no key goes with it, and no content type that the signature does not know.
        headers = {**target.headers, "Content-Length": str(piece.size_bytes)}
        fd = os.open(piece.path, os.O_RDONLY)
        try:
            async with self._session.request(
                target.method, target.url, data=_chunks(fd, piece), headers=headers,
                skip_auto_headers=("Content-Type",), timeout=PUT_TIMEOUT, allow_redirects=False,
            ) as answer:  # fmt: skip
                return answer.status, await answer.read(), answer.headers.get("ETag", "").strip('"')
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise PlatformAwayError(f"upload: {describe(error)}") from None
        finally:
            os.close(fd)


async def _chunks(fd: int, piece: Piece) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    at, end = piece.start_bytes, piece.start_bytes + piece.size_bytes
    while at < end:
        data = await loop.run_in_executor(None, os.pread, fd, min(CHUNK_BYTES, end - at), at)
        if not data:
            raise OSError("it became shorter while it was sent")
        at += len(data)
        yield data
