"""Outputs' files on their way into the platform's storage, streamed from disk."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import aiohttp

from .backoff import Backoff
from .errors import PlatformAwayError, StaleAttemptError
from .job import Job
from .logs import log
from .messages import check_status, decode_object, reason
from .platform import Platform, describe

UPLOAD_SECONDS = 600.0
"""For how long a file is offered to a platform that does not take it: as long as a result is, for it is as dear."""
UPLOAD_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=5.0)
PUT_TIMEOUT = aiohttp.ClientTimeout(total=1800, sock_connect=10, sock_read=300)


class Uploader:
    """Stores files of jobs. Use inside a running event loop; `close` it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

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
        gives_up_at = time.monotonic() + UPLOAD_SECONDS
        failures = 0
        while True:
            try:
                await self._try(job, name, path)
                return f"{self._platform.config.base_url}/v1/storage/{quote(name)}"
            except PlatformAwayError as error:  # noqa: PERF203 - tries again
                failures += 1
                if time.monotonic() > gives_up_at:
                    raise
                if failures == 1:
                    log.warning("%s not uploaded yet, trying on: %s", path.name, error, extra=job.tag)
                await asyncio.sleep(UPLOAD_BACKOFF.pause_seconds(failures))

    async def _try(self, job: Job, name: str, path: Path) -> None:
        wish = {"filename": name}
        if job.attempt_token is not None:
            wish["request_id"], wish["attempt_token"] = job.id, job.attempt_token
        status, body = await self._platform.post("/v1/storage/upload-request", json.dumps(wish).encode())
        _check(status, body, job)
        target = decode_object(body).get("upload_url")
        if not isinstance(target, dict) or not isinstance(target.get("url"), str):
            raise PlatformAwayError("the answer to the upload request names no URL")
        headers = target.get("headers") if isinstance(target.get("headers"), dict) else {}
        with path.open("rb") as file:
            status, body = await self._put(target["url"], target.get("method") or "PUT", headers or {}, file)
        if not 200 <= status < 300:
            _check(status if status >= 400 else 502, body, job)

    async def _put(
        self, url: str, method: str, headers: Mapping[str, str], file: io.BufferedReader
    ) -> tuple[int, bytes]:
        # The URL is signed: no key goes with it, and no content type that the signature does not know.
        try:
            async with self._session.request(
                method, url, data=file, headers=headers, skip_auto_headers=("Content-Type",),
                timeout=PUT_TIMEOUT, allow_redirects=False,
            ) as answer:  # fmt: skip
                return answer.status, await answer.read()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise PlatformAwayError(f"upload: {describe(error)}") from None


def _check(status: int, body: bytes, job: Job) -> None:
    if status == 409 and job.attempt_token is not None:
        raise StaleAttemptError(reason(body) or "the platform answered 409")
    check_status(status, body)
