"""Somebody who takes webhooks: a real HTTP server that answers as it is told."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Received:
    """One webhook."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def delivery(self) -> str:
        return self.headers["webhook-delivery"]

    @property
    def job(self) -> dict[str, Any]:
        job: dict[str, Any] = json.loads(self.body)
        return job

    def signature(self, secret: str) -> str:
        """What the signature must be, worked out by the words of the contract alone."""
        key = base64.b64decode(secret[len("whsec_") :], validate=True)
        signed = b".".join([self.id.encode(), self.headers["webhook-timestamp"].encode(), self.body])
        return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class Receiver:
    """What has come, and how the next ones are answered."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.port = 0
        self.received: list[Received] = []
        self.open = 0
        """How many requests are being answered now."""
        self.most_open = 0
        self.answering: Answering = self.status(200)
        self.coming = asyncio.Condition()
        self.closing = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/hook"

    @staticmethod
    def status(*statuses: int, text: str = "", headers: dict[str, str] | None = None) -> Answering:
        """Answer with these, one after the other, and with the last one from then on."""
        left = list(statuses)

        async def answer(_request: web.Request) -> web.Response:
            return web.Response(status=left.pop(0) if len(left) > 1 else left[0], text=text, headers=headers)

        return answer

    async def never(self, _request: web.Request) -> web.Response:
        """Let the sender wait until the receiver ends."""
        await self.closing.wait()
        return web.Response()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = b"".join([part async for part in request.content.iter_any()])
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(request.method, request.path_qs, headers, body))
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        async with self.coming:
            self.coming.notify_all()
        try:
            return await self.answering(request)  # type: ignore[arg-type]
        finally:
            self.open -= 1

    async def until(self, number: int, seconds: float = 60.0) -> None:
        """Return once so many have come."""
        async with asyncio.timeout(seconds), self.coming:
            await self.coming.wait_for(lambda: len(self.received) >= number)


@asynccontextmanager
async def receiving(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """A receiver at a free port."""
    receiver = Receiver(host)
    runner = web.ServerRunner(web.Server(receiver.handle, access_log=None), shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        receiver.closing.set()
        await runner.cleanup()
