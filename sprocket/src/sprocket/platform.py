"""The platform's HTTP API, as far as a worker needs it. One keep-alive session for everything; no retries in here."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import aiohttp

from .answer import Answer
from .config import PlatformConfig
from .errors import PlatformAwayError, PlatformRefusedError, StaleAttemptError
from .version import __version__
from .wire import Wire

POLL_SECONDS = 20
POLL_TIMEOUT_SECONDS = POLL_SECONDS + 15.0
UPDATE_TIMEOUT_SECONDS = 30.0
"""Outputs may be large; a heartbeat that takes longer than this would come too late anyway."""
UPLOAD_TIMEOUT = aiohttp.ClientTimeout(total=1800, sock_connect=10, sock_read=300)

JSON_HEADERS = {"Content-Type": "application/json"}

_decode = json.JSONDecoder().raw_decode
"""What `json.loads` comes down to; the way there costs a worker that wakes for a claim another 0.03 ms."""

AWAY_STATUSES = frozenset({408, 425, 429})
STALE_STATUSES = frozenset({404, 409})

Taken = TypeVar("Taken")


class Claim(NamedTuple):
    """A job as the queue hands it over. `attempt_token` is None where the platform fences by host name."""

    request_id: str
    payload: Any
    priority: int
    info: Mapping[str, Any]
    attempt: int
    attempt_token: str | None


class Platform:
    """Speaks to the platform as one worker of one deployment. Use inside a running event loop; `close` it."""

    def __init__(self, config: PlatformConfig) -> None:
        self.config = config
        headers = {
            "Authorization": f"Bearer {config.api_key}",
            "User-Agent": f"sprocket/{__version__}",
            "x-worker-version": f"sprocket/{__version__}",
        }
        self._wire = Wire(config.base_url, headers)
        query = {
            "timeout": f"{POLL_SECONDS}s",
            "model": config.deployment,
            "hostname": config.hostname,
            "claim_timeout": config.claim_timeout_seconds,
        }
        self._retrieve = f"/internal/v1/queue/retrieve?{urlencode(query)}"
        self.claim_arriving = False
        """The answer to a poll has begun to come in: it may be a job, so don't hang up."""
        self._uploads = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()
        await self._uploads.close()

    async def claim(self, idle_seconds: float, take: Callable[[Claim], Taken]) -> Taken | None:
        """Wait for a job, up to 20 s.

        Args:
            idle_seconds: the time since the last job.
            take: called with the claim as soon as it is there, one turn of the event loop before this returns.

        Returns:
            What `take` has returned; None where there was no job.

        Raises:
            PlatformAwayError: no answer, or one that makes no sense.
            PlatformRefusedError: a definite no: wrong key, unknown deployment.
        """

        def read(answer: Answer) -> Taken | None:
            claim = self._claim_in(answer)
            return None if claim is None else take(claim)

        try:
            return await self._wire.request(
                "GET",
                self._retrieve,
                headers={"x-idle-time": f"{idle_seconds:.1f}"},
                timeout_seconds=POLL_TIMEOUT_SECONDS,
                read=read,
                on_arrival=self._claim_arrives,
            )
        finally:
            self.claim_arriving = False

    async def update(self, request_id: str, token: str | None, status: str, **fields: str) -> bool:
        """Report on a job that this worker holds: renews the claim, or ends it.

        Args:
            request_id: the job.
            token: the attempt's, where the claim came with one.
            status: running, done, failed, canceled or pending.
            fields: further fields of the body, each already JSON text.

        Returns:
            Whether somebody has asked for the job to be cancelled.

        Raises:
            StaleAttemptError: the job is no longer this attempt's.
            PlatformAwayError, PlatformRefusedError: as for `claim`.
        """
        fixed = {"model": self.config.deployment, "request_id": request_id, "status": status}
        if token is not None:
            fixed["attempt_token"] = token
        further = ",".join(f'"{name}":{text}' for name, text in {"payload": "{}", **fields}.items())
        body = f"{json.dumps(fixed)[:-1]},{further}}}"
        code, answer = await self._post("/internal/v1/videos/status", body)
        if code in (401, 403):
            # Whoever could claim may report: a key that is being rotated must not cost a finished job.
            raise PlatformAwayError(_reason(answer) or f"the platform answered {code}")
        if code in STALE_STATUSES:
            raise StaleAttemptError(_reason(answer) or f"the platform answered {code}")
        _raise_for(code, answer)
        return bool(_object(answer).get("cancel_requested")) if answer else False

    async def upload(self, name: str, path: Path) -> str:
        """Store a file under `name`, streaming it; give the address from which it can be read with a key.

        Raises:
            PlatformAwayError, PlatformRefusedError: as for `claim`.
            OSError: the file cannot be read.
        """
        status, body = await self._post("/v1/storage/upload-request", json.dumps({"filename": name}))
        _raise_for(status, body)
        target = _object(body).get("upload_url")
        if not isinstance(target, dict) or not isinstance(target.get("url"), str):
            raise PlatformAwayError("the answer to the upload request names no URL")
        headers = target.get("headers") if isinstance(target.get("headers"), dict) else {}
        with path.open("rb") as file:
            await self._put(target["url"], target.get("method") or "PUT", headers or {}, file)
        return f"{self.config.base_url}/v1/storage/{quote(name)}"

    async def _put(self, url: str, method: str, headers: Mapping[str, str], file: io.BufferedReader) -> None:
        # The URL is signed: no key goes with it, and no content type that the signature does not know.
        try:
            async with self._uploads.request(
                method, url, data=file, headers=headers, skip_auto_headers=("Content-Type",),
                timeout=UPLOAD_TIMEOUT, allow_redirects=False,
            ) as answer:  # fmt: skip
                body = await answer.read()
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise PlatformAwayError(f"upload: {describe(error)}") from None
        if not 200 <= answer.status < 300:
            _raise_for(answer.status if answer.status >= 400 else 502, body)

    async def _post(self, path: str, body: str) -> tuple[int, bytes]:
        return await self._wire.request(
            "POST",
            path,
            body.encode(),
            headers=JSON_HEADERS,
            timeout_seconds=UPDATE_TIMEOUT_SECONDS,
            read=lambda answer: (answer.status, answer.body),
        )

    def _claim_arrives(self) -> None:
        self.claim_arriving = True

    def _claim_in(self, answer: Answer) -> Claim | None:
        if answer.status == 404:
            raise PlatformRefusedError(404, f"there is no deployment {self.config.deployment!r} for this key")
        _raise_for(answer.status, answer.body)
        if answer.status == 204 or not answer.body:
            return None
        return _claim_of(_object(answer.body))


def describe(error: BaseException) -> str:
    """Say in a few words what went wrong with a transfer; never with a URL, which may be signed."""
    if isinstance(error, asyncio.TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port} ({error.os_error.strerror or error.os_error})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed"
    return type(error).__name__


def _claim_of(answer: Mapping[str, Any]) -> Claim | None:
    data = answer.get("data")
    if data is None:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("request_id"), str) or not data["request_id"]:
        raise PlatformAwayError("the claim has no request_id")
    token, info, priority = data.get("attempt_token"), data.get("info"), data.get("priority")
    return Claim(
        request_id=data["request_id"],
        payload=data.get("payload"),
        priority=priority if isinstance(priority, int) else 0,
        info=info if isinstance(info, dict) else {},
        attempt=data["attempt"] if isinstance(data.get("attempt"), int) else 1,
        attempt_token=token if isinstance(token, str) else None,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode().strip()
        value, end = _decode(text)
        if end != len(text):
            value = None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise PlatformAwayError("the answer is not a JSON object")
    return value


def _raise_for(status: int, body: bytes) -> None:
    if status < 300:
        return
    text = _reason(body) or f"HTTP {status}"
    if status >= 500 or status in AWAY_STATUSES:
        raise PlatformAwayError(f"the platform answered {status}: {text}")
    if status in (401, 403):
        text = f"{text} (is TOGETHER_API_KEY a key for this deployment?)"
    raise PlatformRefusedError(status, f"the platform answered {status}: {text}")


def _reason(body: bytes) -> str:
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:500]
    except (ValueError, KeyError, TypeError):
        return ""
