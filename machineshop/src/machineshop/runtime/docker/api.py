"""A client of the Docker Engine API: requests with bounds, and errors in our words.

Place in the flow: everything else in this package asks the engine through `EngineApi`; nothing else knows of sockets.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from machineshop.errors import RuntimeUnavailable

DEFAULT_ENDPOINT = "unix:///var/run/docker.sock"
API_VERSION = "1.41"
"""Of Engine 20.10. Newer engines serve it too, and Podman 4 and 5 do."""
REQUEST_SECONDS = 60.0
"""Creating, starting and removing are done within a second or so; an engine under load takes longer."""
CONNECT_SECONDS = 5.0
STREAM_SILENCE_SECONDS = 600.0
"""How long a stream of the engine, such as a pull's progress, may say nothing before it is given up."""
ERROR_BYTES = 64 * 1024
LINE_BYTES = 1024 * 1024


class EngineError(Exception):
    """The engine refused: its words, and the status of its answer."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


class EngineAway(OSError):
    """The engine does not answer, or ended in the middle of an answer."""


class EngineApi:
    """One engine.

    Args:
        endpoint: `unix:///path` or `tcp://host:port`, as in DOCKER_HOST.

    Raises:
        RuntimeUnavailable: Nothing of this kind can be spoken to.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._base, self._socket_path = _address(endpoint)
        self._session: aiohttp.ClientSession | None = None
        self._is_podman: bool | None = None

    async def close(self) -> None:
        """Hang up."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def is_podman(self) -> bool:
        """Whether it is a Podman, which does some things in its own way."""
        if self._is_podman is None:
            parts = (await self.get("/version")).get("Components") or ()
            self._is_podman = any("podman" in str(part.get("Name")).lower() for part in parts)
        return self._is_podman

    async def get(self, path: str, **query: object) -> Any:
        """The answer's JSON."""
        return await self._json("GET", path, query)

    async def post(
        self, path: str, body: object = None, *, within_seconds: float | None = REQUEST_SECONDS, **query: object
    ) -> Any:
        """The answer's JSON; None where it has none. `within_seconds` is None for what takes as long as it takes."""
        return await self._json("POST", path, query, body, within_seconds)

    async def delete(self, path: str, **query: object) -> None:
        """Remove something."""
        await self._json("DELETE", path, query)

    async def progress(
        self, path: str, headers: dict[str, str], **query: object
    ) -> AsyncGenerator[dict[str, Any], None]:
        """POST, and the JSON objects that come, one a line; to be closed where it is not read to its end."""
        async with self._answer("POST", path, query, headers=headers, silence_seconds=STREAM_SILENCE_SECONDS) as answer:
            async for line in answer.content:
                if line.strip():
                    yield json.loads(line)

    @contextlib.asynccontextmanager
    async def stream(self, path: str, **query: object) -> AsyncIterator[aiohttp.StreamReader]:
        """GET, and the bytes that come; they may be long in coming."""
        async with self._answer("GET", path, query, silence_seconds=None) as answer:
            yield answer.content

    async def _json(
        self,
        method: str,
        path: str,
        query: dict[str, object],
        body: object = None,
        within_seconds: float | None = REQUEST_SECONDS,
    ) -> Any:
        try:
            async with asyncio.timeout(within_seconds), self._answer(method, path, query, body) as answer:
                text = await answer.read()
        except TimeoutError:
            raise EngineAway(f"the engine at {self.endpoint} gave no answer in {within_seconds:.0f} s") from None
        try:
            return json.loads(text) if text.strip() else None
        except ValueError:
            return None  # "OK", and the like

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: dict[str, object],
        body: object = None,
        headers: dict[str, str] | None = None,
        silence_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is no refusal.

        Raises:
            EngineError: It is one.
            EngineAway: There is none.
        """
        params = {name: _text(value) for name, value in query.items() if value is not None}
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=silence_seconds)
        try:
            async with self._opened().request(
                method, f"{self._base}/v{API_VERSION}{path}", params=params, json=body, headers=headers, timeout=timeout
            ) as answer:
                if answer.status >= 400:
                    raise EngineError(answer.status, _message(await answer.content.read(ERROR_BYTES)))
                yield answer
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise EngineAway(f"the engine at {self.endpoint} does not answer ({why})") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector: aiohttp.BaseConnector = aiohttp.TCPConnector(limit=0)
            if self._socket_path is not None:
                connector = aiohttp.UnixConnector(self._socket_path, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, read_bufsize=LINE_BYTES)
        return self._session


def endpoint_here() -> str:
    """Where the engine of this machine is: DOCKER_HOST, or the usual socket."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_ENDPOINT


async def answers(endpoint: str, within_seconds: float = 10.0) -> bool:
    """Whether an engine is there that serves our version of the API; one that a socket wakes up takes its time."""
    try:
        api = EngineApi(endpoint)
    except RuntimeUnavailable:
        return False
    try:
        async with asyncio.timeout(within_seconds):
            await api.get("/version")
    except (EngineError, OSError, TimeoutError):
        return False
    else:
        return True
    finally:
        await api.close()


def _address(endpoint: str) -> tuple[str, str | None]:
    """The base of URLs, and the path of the socket where it is one."""
    url = urlsplit(endpoint)
    if url.scheme == "unix" and url.path:
        return "http://engine", url.path
    if url.scheme in {"tcp", "http"} and url.netloc:
        return f"http://{url.netloc}", None
    raise RuntimeUnavailable(
        message=f"DOCKER_HOST is '{endpoint}', which cannot be used here: it must be unix:///path/of/docker.sock, or "
        "tcp://host:port of an engine on this machine."
    )


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _message(text: bytes) -> str:
    """What an error's answer says: `{"message": ...}`, or whatever there is."""
    try:
        return str(json.loads(text)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return text.decode(errors="replace").strip() or "it gave no reason"
