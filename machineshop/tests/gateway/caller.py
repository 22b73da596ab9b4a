"""A caller of the gateway over a real socket, and replicas that are servers of the tests' own."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import msgspec
from aiohttp import web

from factory import ADMIN_KEY
from machineshop.config import GatewayLimits
from machineshop.gateway.proxy import Gateway
from machineshop.models import Deployment
from machineshop.runtime.base import Replica, ReplicaStatus
from machineshop.services.traffic import Traffic

PREFIX = "/v1/deployment-request/hello/"
# Long enough for what comes in time, and soon over where a test wants that.
LIMITS = GatewayLimits(hold_seconds=1.0, held=50, key_concurrency=100, body_bytes=64 * 1024 * 1024)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def replica(name: str, port: int = 1, *, ready: float | None = 1.0, draining: bool = False) -> Replica:
    return Replica(
        id=name,
        deployment_id="d",
        revision_id="r",
        image="i",
        status=ReplicaStatus.RUNNING,
        created_at=0,
        port=port,
        ready_since=ready,
        draining=draining,
    )


class Replicas:
    """Stands for the runtime: what `observe` gives."""

    def __init__(self) -> None:
        self.seen: list[Replica] = []
        self.asked = 0
        """How often somebody wanted to know about one deployment."""

    async def observe(self, deployment_id: str | None = None) -> list[Replica]:
        self.asked += deployment_id is not None
        return [one for one in self.seen if deployment_id in (None, one.deployment_id)]


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[int]:
    """A replica's server on a free port."""
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    try:
        yield listener.getsockname()[1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def recorder(
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A replica that answers every request with these bytes and hangs up: its port, and the heads that it got."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


class Caller:
    """A client of the gateway, and the replicas behind it."""

    def __init__(
        self,
        port: int,
        session: aiohttp.ClientSession,
        gateway: Gateway,
        replicas: Replicas,
        deployment: Deployment,
        traffic: Traffic,
    ) -> None:
        self.port = port
        self.session = session
        self.gateway = gateway
        self.replicas = replicas
        self._deployment = deployment
        self._traffic = traffic

    def serve(self, *ports: int) -> None:
        """These are the ready replicas."""
        self.replicas.seen = [
            msgspec.structs.replace(replica(f"r{n}", port, ready=float(n + 1)), deployment_id=self._deployment.id)
            for n, port in enumerate(ports)
        ]
        self.gateway.sight.forget()

    def crash(self, reason: str | None) -> None:
        """The one replica crashes again and again; it waits for its next start, or without a reason it is in a run."""
        self.replicas.seen = [
            msgspec.structs.replace(
                replica("r", ready=None),
                deployment_id=self._deployment.id,
                revision_id=self._deployment.revision_id,
                reason=reason,
            )
        ]
        self.gateway.sight.forget()

    def held(self) -> int:
        """How many requests wait for a replica."""
        return self.gateway.held(self._deployment.id)

    def in_flight(self) -> int:
        """How many requests are in the hands of a replica."""
        return self._traffic.seen(self._deployment.id, 0.0).in_flight

    def head(self, line: str) -> bytes:
        """The first lines of a request."""
        return f"{line}\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n".encode()

    async def raw(self, line: str, headers: bytes = b"Connection: close", body: bytes = b"") -> bytes:
        """Every byte that comes back for one request until the gateway closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.head(line) + headers + b"\r\n\r\n" + body)
        try:
            async with asyncio.timeout(60):
                return await reader.read()
        finally:
            writer.close()
