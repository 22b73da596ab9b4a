"""One prepared HTTP request sent again and again on many keep-alive connections, for as little CPU as Python can."""

import asyncio
import time
from dataclasses import dataclass, field

import uvloop

from harness.errors import BenchmarkError
from harness.raw_http import OK, Answers, connect

DONE_LIMIT_SECONDS = 30.0


@dataclass
class Load:
    """What is sent, and what has come back.

    Args:
        request: the bytes of one request.
        seconds: how long it is sent.
        began: when that began, as `time.monotonic()` counts.
    """

    request: bytes
    seconds: float
    began: float
    answered: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    refused: str | None = None


class _Sender:
    """Sends the request on a connection of its own, waits for its answer, and sends it again."""

    _connection: Answers

    def __init__(self, load: Load) -> None:
        self._load = load
        self._sent_at = 0.0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, port: int) -> None:
        self._connection = await connect(port, self._answered)
        self._send()
        await self._ended
        self._connection.close()

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        self._connection.send(self._load.request)

    def _answered(self, answer: bytes) -> None:
        now = time.monotonic()
        if not answer.startswith(OK):
            self._load.refused = answer.decode(errors="replace") or "the server hung up."
            self._ended.set_result(None)
            return
        self._load.answered += 1
        self._load.latencies_ms.append((now - self._sent_at) * 1e3)
        if now < self._load.began + self._load.seconds:
            self._send()
        else:
            self._ended.set_result(None)


def put_under_load(port: int, request: bytes, connections: int, seconds: float) -> Load:
    """Send a request for so long; returns once every one that was sent is answered.

    Raises:
        BenchmarkError: one is answered with something else than 200.
    """
    load = uvloop.run(_put_under_load(port, request, connections, seconds))
    if load.refused is not None:
        raise BenchmarkError(f"Under load: {load.refused[:500]}")
    return load


async def _put_under_load(port: int, request: bytes, connections: int, seconds: float) -> Load:
    load = Load(request, seconds, time.monotonic())
    async with asyncio.timeout(seconds + DONE_LIMIT_SECONDS):
        await asyncio.gather(*(_Sender(load).run(port) for _ in range(connections)))
    return load
