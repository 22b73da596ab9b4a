"""Forwards requests to a deployment's replicas: `/v1/deployment-request/{name or id}/{any path}`.

Plain ASGI on one side and aiohttp on the other, with nothing buffered in between. A request goes to the ready replica
with the fewest in flight; one that could not even be sent goes to another.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Protocol

import aiohttp
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from yarl import URL

from machineshop.errors import MachineshopError, NoReadyReplica, NotPermitted, ReplicaUnreachable
from machineshop.gateway import headers
from machineshop.gateway.balancer import choose
from machineshop.http import USER_SCOPES, bearer_token, error_response
from machineshop.ids import new_id
from machineshop.models import Deployment
from machineshop.runtime.base import Replica
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService

log = logging.getLogger(__name__)

PREFIX = "/v1/deployment-request"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
CONNECT_SECONDS = 5.0
# A model may think for long before its first byte; without any byte for this long the replica counts as stuck.
SILENCE_SECONDS = 3600.0


class Replicas(Protocol):
    """Who knows the replicas: the runtime."""

    async def observe(self) -> list[Replica]:
        """All of them."""
        ...


class Gateway:
    """The ASGI application behind the gateway's route."""

    def __init__(self, identity: IdentityService, deployments: DeploymentService, replicas: Replicas) -> None:
        self._identity = identity
        self._deployments = deployments
        self._replicas = replicas
        self._in_flight: Counter[str] = Counter()
        self._session: aiohttp.ClientSession | None = None

    def routes(self) -> list[Route]:
        """The gateway's one route, for every method and path."""
        return [Route(PREFIX + "/{deployment}/{path:path}", self, methods=METHODS, name="gateway")]

    async def start(self) -> None:
        """Open the connection pool."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate, then forward."""
        request = Request(scope, receive)
        try:
            deployment = await self._authorize(request)
            await self._forward(request, deployment, send)
        except MachineshopError as error:
            await error_response(error)(scope, receive, send)

    async def _authorize(self, request: Request) -> Deployment:
        identity = await self._identity.authenticate(bearer_token(request.headers))
        if identity.key.scope not in USER_SCOPES:
            raise NotPermitted(needed=" or ".join(USER_SCOPES), scope=identity.key.scope)
        return await self._deployments.get(identity.project.id, request.path_params["deployment"])

    async def _forward(self, request: Request, deployment: Deployment, send: Send) -> None:
        refused: frozenset[str] = frozenset()
        while True:
            replica = await self._choose(deployment, refused)
            exchange = _Exchange(request, send, replica)
            self._in_flight[replica.id] += 1
            try:
                await exchange.run(self._opened())
                return
            except aiohttp.ClientError as error:
                if exchange.started:
                    log.warning("gateway.cut deployment=%s replica=%s error=%s", deployment.name, replica.id, error)
                    raise ConnectionAbortedError from error  # the server closes the connection: the caller must know
                if not exchange.may_retry(error):
                    raise ReplicaUnreachable(name=deployment.name, cause=type(error).__name__) from error
                refused |= {replica.id}
            finally:
                self._in_flight[replica.id] -= 1
                if not self._in_flight[replica.id]:
                    del self._in_flight[replica.id]

    async def _choose(self, deployment: Deployment, refused: frozenset[str]) -> Replica:
        replicas = [r for r in await self._replicas.observe() if r.deployment_id == deployment.id]
        replica = choose(replicas, self._in_flight, refused)
        if replica is None:
            raise NoReadyReplica(
                f"No replica of '{deployment.name}' is ready to answer; 'jig status' says why. Try again shortly."
            )
        return replica

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise NoReadyReplica("The gateway is not open yet.")
        return self._session


class _Exchange:
    """One request to one replica and the answer back."""

    def __init__(self, request: Request, send: Send, replica: Replica) -> None:
        self._request = request
        self._send = send
        self._replica = replica
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
        """Forward; ends early when the caller hangs up, which hangs up on the replica too."""
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
            self.started = True
            await self._send(
                {
                    "type": "http.response.start",
                    "status": response.status,
                    "headers": headers.to_client(response.raw_headers, self._request_id),
                }
            )
            async for part in response.content.iter_any():
                await self._send({"type": "http.response.body", "body": part, "more_body": True})
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

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
        path = self._request.scope.get("raw_path") or self._request.url.path.encode()
        _, _, rest = path.decode("latin-1").partition(PREFIX + "/")
        _, _, tail = rest.partition("/")
        query = self._request.scope["query_string"].decode("latin-1")
        return URL(
            f"http://{self._replica.host}:{self._replica.port}/{tail}" + (f"?{query}" if query else ""), encoded=True
        )

    def _client(self) -> str:
        return self._request.client.host if self._request.client else "unknown"


def _has_body(request_headers: Headers) -> bool:
    return request_headers.get("content-length", "0") != "0" or "transfer-encoding" in request_headers
