"""The platform's HTTP API, as far as a worker needs it. Connections that stay open; no retries in here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

import aiohttp

from .answer import Answer
from .config import PlatformConfig
from .errors import OlderPlatformError, PlatformRefusedError
from .messages import (
    KEY_STATUSES,
    Claim,
    Update,
    Verdict,
    check_status,
    check_update,
    claims_in,
    decode_object,
    encode_batch,
    reason,
    verdicts_in,
)
from .turns import Turns
from .version import __version__
from .wire import Wire

POLL_SECONDS = 20
POLL_TIMEOUT_SECONDS = POLL_SECONDS + 15.0
UPDATE_TIMEOUT_SECONDS = 30.0
"""Outputs may be large; a heartbeat that takes longer than this would come too late anyway."""

JSON_HEADERS = {"Content-Type": "application/json"}

RETRIEVE = "/internal/v1/queue/retrieve"
UPDATES = "/internal/v1/queue/updates"
STATUS = "/internal/v1/videos/status"
NO_ROUTE_STATUSES = frozenset({404, 405})

Take = Callable[["list[Claim]"], object]


class Platform:
    """Speaks to the platform as one worker of one deployment. Use inside a running event loop; `close` it."""

    def __init__(self, config: PlatformConfig) -> None:
        self.config = config
        headers = {
            "Authorization": f"Bearer {config.api_key}",
            "User-Agent": f"sprocket/{__version__}",
            "x-worker-version": config.worker_version,
        }
        self._wire = Wire(config.base_url, headers)
        self._turns = Turns(config.claim_timeout_seconds)
        query = {
            "timeout": f"{POLL_SECONDS}s",
            "model": config.deployment,
            "hostname": config.hostname,
            "claim_timeout": config.claim_timeout_seconds,
        }
        self._retrieve = f"{RETRIEVE}?{urlencode(query)}"
        self.claim_arriving = False
        """The answer to a poll has begun to come in: it may be a job, so don't hang up."""

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    async def claim(self, max_jobs: int, idle_seconds: float, take: Take) -> int:
        """Wait for jobs, up to 20 s.

        Args:
            max_jobs: how many to take at most; where there are fewer, the first one ends the wait.
            idle_seconds: the time since the last job.
            take: called with the claims as soon as they are there, one turn of the event loop before this returns.

        Returns:
            How many there were.

        Raises:
            PlatformAwayError: no answer, or one that makes no sense.
            PlatformRefusedError: a definite no: wrong key, unknown deployment.
        """

        def read(answer: Answer) -> int:
            claims = self._claims_in(answer)
            self._turns.answered()
            if claims:
                take(claims)
            return len(claims)

        try:
            return await self._wire.request(
                "GET",
                self._retrieve if max_jobs == 1 else f"{self._retrieve}&max_jobs={max_jobs}",
                headers=lambda: {"x-idle-time": f"{idle_seconds:.1f}", **self._turns.headers()},
                timeout_seconds=POLL_TIMEOUT_SECONDS,
                read=read,
                on_arrival=self._claim_arrives,
            )
        except PlatformRefusedError:
            self._turns.answered()
            raise
        finally:
            self.claim_arriving = False

    async def update(self, update: Update) -> bool:
        """Report on a job that this worker holds: renews the claim, or ends it.

        Returns:
            Whether somebody has asked for the job to be cancelled.

        Raises:
            StaleAttemptError: the job is no longer this attempt's.
            PlatformAwayError, PlatformRefusedError: as for `claim`.
        """
        status, body = await self.post(STATUS, update.encode(self.config.deployment).encode())
        check_update(status, body)
        return bool(decode_object(body).get("cancel_requested")) if body else False

    async def exchange(self, updates: Sequence[Update], max_jobs: int, take: Take) -> list[Verdict]:
        """Report on several jobs, and claim others in their place, without waiting for any.

        Args:
            updates: what to report, in this order.
            max_jobs: how many jobs to claim at most; 0 for none.
            take: called with the claims as soon as they are there, one turn of the event loop before this returns.

        Returns:
            How each of the updates fared.

        Raises:
            OlderPlatformError: the platform does not know of this; nothing has happened.
            PlatformAwayError, PlatformRefusedError: as for `claim`, for all of it.
        """
        wish = {
            "hostname": self.config.hostname,
            "claim_timeout": self.config.claim_timeout_seconds,
            "max_jobs": max_jobs,
            "timeout": "0s",
        }

        def read(answer: Answer) -> list[Verdict]:
            if answer.status in NO_ROUTE_STATUSES:
                raise OlderPlatformError(reason(answer.body) or f"the platform answered {answer.status}")
            if answer.status in KEY_STATUSES:
                check_update(answer.status, answer.body)
            check_status(answer.status, answer.body)
            content = decode_object(answer.body)
            claims = claims_in(content)
            if max_jobs:
                self._turns.answered()
            if claims:
                take(claims)
            return verdicts_in(content, len(updates))

        try:
            return await self._wire.request(
                "POST",
                UPDATES,
                encode_batch(self.config.deployment, updates, wish if max_jobs else None),
                headers=lambda: {**JSON_HEADERS, **self._turns.headers()} if max_jobs else JSON_HEADERS,
                timeout_seconds=UPDATE_TIMEOUT_SECONDS,
                read=read,
            )
        except (PlatformRefusedError, OlderPlatformError):
            if max_jobs:
                self._turns.answered()
            raise

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send JSON; give the answer's status and body.

        Raises:
            PlatformAwayError: there is no answer.
        """
        return await self._wire.request(
            "POST",
            path,
            body,
            headers=_json_headers,
            timeout_seconds=UPDATE_TIMEOUT_SECONDS,
            read=lambda answer: (answer.status, answer.body),
        )

    def _claim_arrives(self) -> None:
        self.claim_arriving = True

    def _claims_in(self, answer: Answer) -> list[Claim]:
        if answer.status == 404:
            raise PlatformRefusedError(404, f"there is no deployment {self.config.deployment!r} for this key")
        check_status(answer.status, answer.body)
        if answer.status == 204 or not answer.body:
            return []
        return claims_in(decode_object(answer.body))


def _json_headers() -> Mapping[str, str]:
    return JSON_HEADERS


def describe(error: BaseException) -> str:
    """Say in a few words what went wrong with a transfer; never with a URL, which may be signed."""
    if isinstance(error, asyncio.TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port} ({error.os_error.strerror or error.os_error})"
    if isinstance(error, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
        return "the connection was closed"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not understood"
    return type(error).__name__
