"""One request to a replica, or to another server, and the answer back, with nothing buffered in between."""

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Send
from yarl import URL

from machineshop.errors import ReplicaUnreachable
from machineshop.gateway import headers
from machineshop.ids import new_id
from machineshop.runtime.base import Replica

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
# Lower ones are no answers: those that only announce one never get here, and nobody asked to switch protocols.
STATUSES = range(200, 600)
# Behind as many slashes the replica's own path begins: `/v1/deployment-request/{deployment}/`. An encoded slash is one
# too here, because routes match the decoded path.
SLASHES_BEFORE_TAIL = 4
SLASH = re.compile(r"/|%2[Ff]")


class ImpossibleAnswer(ReplicaUnreachable):
    """{name} answered with the impossible {what}: mend the server that said so."""


class Target(msgspec.Struct, frozen=True):
    """Where a request goes, and how it is written there."""

    url: URL
    headers: list[tuple[str, str]]
    request_id: str
    name: str
    """Who that is, in a message."""


def replica_target(request: Request, replica: Replica, deployment_name: str) -> Target:
    """A replica, which never sees the caller's key."""
    request_id = _request_id(request)
    client = request.client.host if request.client else "unknown"
    tail = SLASH.split(_raw_path(request), SLASHES_BEFORE_TAIL)[-1]
    return Target(
        URL(f"http://{replica.host}:{replica.port}/{tail}{_query(request)}", encoded=True),
        headers.to_replica(request.headers.raw, client, request_id),
        request_id,
        f"A replica of '{deployment_name}'",
    )


def server_target(request: Request, base_url: str, server_id: str) -> Target:
    """Another server of the platform, which is asked the same; `server_id` is this one."""
    request_id = _request_id(request)
    return Target(
        URL(f"{base_url.rstrip('/')}{_raw_path(request)}{_query(request)}", encoded=True),
        headers.to_server(request.headers.raw, request_id, server_id),
        request_id,
        f"The server at {base_url}",
    )


class Exchange:
    """One request to one target; `started` once the caller has got the beginning of the answer."""

    def __init__(self, request: Request, send: Send, target: Target) -> None:
        self._request = request
        self._send = send
        self._target = target
        self._body_begun = False
        self._body_ended = asyncio.Event()
        self.started = False

    def may_retry(self, error: aiohttp.ClientError) -> bool:
        """Whether another replica may get the request: nothing of it was sent, or repeating it is harmless."""
        if self._body_begun:
            return False
        return isinstance(error, aiohttp.ClientConnectorError) or self._request.method in IDEMPOTENT

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Forward; ends early when the caller hangs up, which hangs up on the target too.

        Raises:
            aiohttp.ClientError: The target could not be reached, or broke off.
            ImpossibleAnswer: No HTTP message can say what it answered.
        """
        answer = asyncio.ensure_future(self._exchange(session))
        hung_up = asyncio.ensure_future(self._hung_up())
        try:
            await asyncio.wait([answer, hung_up], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
        finally:
            for task in (answer, hung_up):
                task.cancel()
            await asyncio.gather(answer, hung_up, return_exceptions=True)

    async def _exchange(self, session: aiohttp.ClientSession) -> None:
        async with session.request(
            self._request.method,
            self._target.url,
            headers=self._target.headers,
            data=self._body() if _has_body(self._request.headers) else None,
            allow_redirects=False,
        ) as response:
            self._check(response)
            self.started = True
            await self._send(
                {
                    "type": "http.response.start",
                    "status": response.status,
                    "headers": headers.to_client(response.raw_headers, response.status, self._target.request_id),
                }
            )
            if self._request.method != "HEAD" and response.status not in headers.BODILESS:
                async for part in response.content.iter_any():
                    await self._send({"type": "http.response.body", "body": part, "more_body": True})
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _check(self, response: aiohttp.ClientResponse) -> None:
        """Refuse what our own server could not pass on."""
        if response.status not in STATUSES:
            raise ImpossibleAnswer(name=self._target.name, what=f"status {response.status}")
        if bad := headers.malformed(response.raw_headers):
            raise ImpossibleAnswer(name=self._target.name, what=f"header {bad}")

    async def _body(self) -> AsyncIterator[bytes]:
        self._body_begun = True
        async for part in self._request.stream():
            if part:
                yield part
        self._body_ended.set()

    async def _hung_up(self) -> None:
        """Return once the caller hangs up; while the body is being read, whoever reads it notices that."""
        if _has_body(self._request.headers):
            await self._body_ended.wait()
        while (await self._request.receive())["type"] != "http.disconnect":
            pass


def _request_id(request: Request) -> str:
    return request.headers.get("x-request-id", "")[:128] or new_id()


def _raw_path(request: Request) -> str:
    path: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return path.decode("latin-1")


def _query(request: Request) -> str:
    query: str = request.scope["query_string"].decode("latin-1")
    return f"?{query}" if query else ""


def _has_body(request_headers: Headers) -> bool:
    return request_headers.get("content-length", "0") != "0" or "transfer-encoding" in request_headers
