"""One request to one replica and the answer back, with nothing buffered in between."""

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
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
    """A replica of '{name}' answered with the impossible {what}: mend the server inside the deployment."""


class Exchange:
    """One request to one replica; `started` once the caller has got the beginning of the answer."""

    def __init__(self, request: Request, send: Send, replica: Replica, deployment_name: str) -> None:
        self._request = request
        self._send = send
        self._replica = replica
        self._deployment_name = deployment_name
        self._request_id = request.headers.get("x-request-id", "")[:128] or new_id()
        self._body_begun = False
        self._body_ended = asyncio.Event()
        self.started = False

    def may_retry(self, error: aiohttp.ClientError) -> bool:
        """Whether another replica may get the request: nothing of it was sent, or repeating it is harmless."""
        if self._body_begun:
            return False
        return isinstance(error, aiohttp.ClientConnectorError) or self._request.method in IDEMPOTENT

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Forward; ends early when the caller hangs up, which hangs up on the replica too.

        Raises:
            aiohttp.ClientError: The replica could not be reached, or broke off.
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
            self._url(),
            headers=headers.to_replica(self._request.headers.raw, self._client(), self._request_id),
            data=self._body() if _has_body(self._request.headers) else None,
            allow_redirects=False,
        ) as response:
            self._check(response)
            self.started = True
            await self._send(
                {
                    "type": "http.response.start",
                    "status": response.status,
                    "headers": headers.to_client(response.raw_headers, response.status, self._request_id),
                }
            )
            if self._request.method != "HEAD" and response.status not in headers.BODILESS:
                async for part in response.content.iter_any():
                    await self._send({"type": "http.response.body", "body": part, "more_body": True})
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _check(self, response: aiohttp.ClientResponse) -> None:
        """Refuse what our own server could not pass on."""
        if response.status not in STATUSES:
            raise ImpossibleAnswer(name=self._deployment_name, what=f"status {response.status}")
        if bad := headers.malformed(response.raw_headers):
            raise ImpossibleAnswer(name=self._deployment_name, what=f"header {bad}")

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

    def _url(self) -> URL:
        path = self._request.scope.get("raw_path") or quote(self._request.scope["path"]).encode()
        tail = SLASH.split(path.decode("latin-1"), SLASHES_BEFORE_TAIL)[-1]
        query = self._request.scope["query_string"].decode("latin-1")
        return URL(
            f"http://{self._replica.host}:{self._replica.port}/{tail}" + (f"?{query}" if query else ""), encoded=True
        )

    def _client(self) -> str:
        return self._request.client.host if self._request.client else "unknown"


def _has_body(request_headers: Headers) -> bool:
    return request_headers.get("content-length", "0") != "0" or "transfer-encoding" in request_headers
