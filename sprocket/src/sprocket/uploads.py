"""Outputs' files on their way into the platform's storage: streamed from disk, in parts where they are large."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from .backoff import Backoff
from .errors import OlderPlatformError, PlatformAwayError, PlatformError, PlatformRefusedError, StaleAttemptError
from .job import Job
from .logs import log
from .messages import check_status, decode_object, reason
from .platform import Platform
from .sending import Piece, Sender, Target
from .timeouts import timeout

UPLOAD_SECONDS = 600.0
"""For how long a file is offered to a platform that does not take it: as long as a result is, for it is as dear."""
UPLOAD_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=5.0)
FRESH_URLS = 3
"""How often a URL that is refused is replaced: it may have run out while the file waited, but not again and again."""

MULTIPART_FROM_BYTES = 100_000_000
PART_BYTES = 64 * 1024**2
"""What has to be sent again after a broken connection; many of them would cost a request and a sync to disk each."""
MAX_PARTS = 10_000
PARTS_AT_A_TIME = 4
ABORT_SECONDS = 5.0

UPLOAD_REQUEST = "/v1/storage/upload-request"
MULTIPART = "/v1/storage/multipart"
NO_ROUTE_STATUSES = frozenset({404, 405})

T = TypeVar("T")


class Uploader:
    """Stores files of jobs. Use inside a running event loop; `close` it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._sender = Sender()

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()

    async def upload(self, job: Job, name: str, path: Path) -> str:
        """Store a file of a job, and try for up to 10 minutes where the platform is away.

        Args:
            job: whose output it is.
            name: what it is to be called.
            path: the file.

        Returns:
            The address from which it can be read with a key.

        Raises:
            StaleAttemptError: the job is no longer this attempt's.
            PlatformAwayError, PlatformRefusedError: as for `Platform.claim`.
            OSError: the file cannot be read.
        """
        upload = _Upload(self._platform, self._sender, job, name, path)
        try:
            if upload.size_bytes < MULTIPART_FROM_BYTES:
                await upload.whole()
            else:
                await upload.in_parts()
        except OlderPlatformError:  # it takes files in one piece alone
            await upload.whole()
        return f"{self._platform.config.base_url}/v1/storage/{quote(name)}"


class _Upload:
    """One file on its way."""

    def __init__(self, platform: Platform, sender: Sender, job: Job, name: str, path: Path) -> None:
        self.size_bytes = path.stat().st_size
        self._platform = platform
        self._sender = sender
        self._job = job
        self._path = path
        self._file = {"filename": name}
        self._fence = {"request_id": job.id, "attempt_token": job.attempt_token} if job.attempt_token else {}
        self._warned = False

    async def whole(self) -> None:
        """Send it in one piece."""

        async def once() -> None:
            answer = await self._ask(UPLOAD_REQUEST, {**self._file, **self._fence})
            await self._put(answer.get("upload_url"), Piece(self._path, 0, self.size_bytes))

        await self._with_fresh_urls(lambda: self._patiently(once))

    async def in_parts(self) -> None:
        """Send it in parts, several at a time; a part that does not get through is sent again by itself."""
        await self._with_fresh_urls(self._in_parts)

    async def _in_parts(self) -> None:
        pieces = _pieces_of(self._path, self.size_bytes)
        wish = {**self._file, "parts_count": len(pieces), **self._fence}
        answer = await self._patiently(lambda: self._ask(f"{MULTIPART}/init", wish))
        ending = {**self._file, "upload_id": answer.get("upload_id")}
        try:
            etags = await self._send_parts(_urls_of(answer, len(pieces)), pieces)
            parts = [{"part_number": number, "etag": etag} for number, etag in enumerate(etags, 1)]
            await self._patiently(lambda: self._ask(f"{MULTIPART}/complete", {**ending, "parts": parts}))
        except (PlatformError, OSError, asyncio.CancelledError):
            await self._give_up(ending)
            raise

    async def _send_parts(self, targets: list[Any], pieces: list[Piece]) -> list[str]:
        limit = asyncio.Semaphore(PARTS_AT_A_TIME)

        async def one(target: Any, piece: Piece) -> str:
            async with limit:
                return await self._patiently(lambda: self._put(target, piece))

        tasks = [asyncio.ensure_future(one(*part)) for part in zip(targets, pieces, strict=True)]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _give_up(self, ending: dict[str, Any]) -> None:
        """Have the parts removed; where that fails, the platform does it by itself after a while."""
        try:
            async with timeout(ABORT_SECONDS):
                await self._ask(f"{MULTIPART}/abort", ending)
        except (PlatformError, asyncio.TimeoutError):
            log.info("the parts of %s are left to the platform", self._path.name, extra=self._job.tag)

    async def _put(self, target: Any, piece: Piece) -> str:
        """Send a piece; give its ETag."""
        status, body, etag = await self._sender.put(Target.read(target), piece)
        if not 200 <= status < 300:
            if status == 403:
                raise _UrlRefusedError(403, reason(body) or "the upload's URL was refused")
            self._check(status if status >= 400 else 502, body)
        return etag

    async def _ask(self, path: str, wish: dict[str, Any]) -> dict[str, Any]:
        status, body = await self._platform.post(path, json.dumps(wish).encode())
        if status in NO_ROUTE_STATUSES and path == f"{MULTIPART}/init":
            raise OlderPlatformError("the platform takes no files in parts")
        self._check(status, body)
        return decode_object(body)

    def _check(self, status: int, body: bytes) -> None:
        if status == 409 and self._fence:
            raise StaleAttemptError(reason(body) or "the platform answered 409")
        check_status(status, body)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until the platform answers, for up to 10 minutes."""
        gives_up_at = time.monotonic() + UPLOAD_SECONDS
        failures = 0
        while True:
            try:
                return await attempt()
            except PlatformAwayError as error:  # noqa: PERF203 - tries again
                failures += 1
                if time.monotonic() > gives_up_at:
                    raise
                if not self._warned:
                    log.warning("%s not uploaded yet, trying on: %s", self._path.name, error, extra=self._job.tag)
                self._warned = True
                await asyncio.sleep(UPLOAD_BACKOFF.pause_seconds(failures))

    async def _with_fresh_urls(self, attempt: Callable[[], Awaitable[None]]) -> None:
        for left in reversed(range(FRESH_URLS)):
            try:
                await attempt()
                return
            except _UrlRefusedError as error:  # noqa: PERF203 - tries again
                if not left:
                    raise
                log.info("a fresh URL for %s: %s", self._path.name, error, extra=self._job.tag)


class _UrlRefusedError(PlatformRefusedError):
    """The signed URL is not taken: it has run out, perhaps."""


def _pieces_of(path: Path, size_bytes: int) -> list[Piece]:
    part_bytes = max(PART_BYTES, -(-size_bytes // MAX_PARTS))
    return [Piece(path, at, min(part_bytes, size_bytes - at)) for at in range(0, size_bytes, part_bytes)]


def _urls_of(answer: dict[str, Any], count: int) -> list[Any]:
    """The parts' URLs in the order of the parts."""
    urls = answer.get("part_upload_urls")
    if not isinstance(urls, list) or len(urls) != count or not isinstance(answer.get("upload_id"), str):
        raise PlatformAwayError("the answer to the upload request names no URLs")
    return urls
