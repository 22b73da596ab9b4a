"""Asks replicas for a metric of their own: GET `/metrics`, in the text format of Prometheus.

Place in the flow: the scaler asks for a mean and gets what is known at once; what is older than a few seconds is asked
for again in the background, so that a replica that does not answer keeps nobody waiting.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence

import aiohttp
import msgspec

from machineshop.runtime.base import Replica

log = logging.getLogger(__name__)

FRESH_SECONDS = 5.0
# A value that could not be had again for so long counts no more.
STALE_SECONDS = 30.0
TIMEOUT_SECONDS = 3.0
MAX_BYTES = 4 * 1024 * 1024
AT_ONCE = 32


class _Known(msgspec.Struct, frozen=True):
    at: float
    text: str


class Scraper:
    """What replicas have said last. Used within one event loop; `close` ends what is under way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._asked_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._room = asyncio.Semaphore(AT_ONCE)

    def mean(self, name: str, replicas: Sequence[Replica]) -> float | None:
        """The metric's mean over the replicas that have said it lately; None where none has."""
        now = self._clock()
        for replica in replicas:
            if now - self._asked_at.get(replica.id, 0.0) >= FRESH_SECONDS:
                self._asked_at[replica.id] = now
                self._spawn(replica)
        self._forget(now)
        known = [self._known[replica.id] for replica in replicas if replica.id in self._known]
        values = [value for one in known if (value := value_of(one.text, name)) is not None]
        return sum(value / len(values) for value in values) if values else None

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _spawn(self, replica: Replica) -> None:
        task = asyncio.create_task(self._scrape(replica))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _scrape(self, replica: Replica) -> None:
        if self._session is None:
            # A connection that stays would take all the hands of a replica that has one, and keep one that drains from
            # its end.
            connector = aiohttp.TCPConnector(force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        url = f"http://{replica.host}:{replica.port}/metrics"
        try:
            async with (
                self._room,
                asyncio.timeout(TIMEOUT_SECONDS),
                # A redirect is no value: a replica does not choose what the platform asks, and where.
                self._session.get(url, allow_redirects=False) as answer,
            ):
                body = await _beginning_of(answer) if answer.status == 200 else b""
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.debug("metrics.unanswered replica_id=%s error=%s", replica.id, type(error).__name__)
            return
        self._known[replica.id] = _Known(self._clock(), body.decode(errors="replace"))

    def _forget(self, now: float) -> None:
        self._known = {id_: known for id_, known in self._known.items() if now - known.at < STALE_SECONDS}
        self._asked_at = {id_: at for id_, at in self._asked_at.items() if now - at < STALE_SECONDS}


async def _beginning_of(answer: aiohttp.ClientResponse) -> bytes:
    """What an answer says, as far as it is read: it comes in as many pieces as the replica likes."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) >= MAX_BYTES:
            break
    return bytes(body[:MAX_BYTES])


def value_of(text: str, name: str) -> float | None:
    """A metric's value in the text format of Prometheus, summed over its labels; None where it is none."""
    values = [value for line in text.splitlines() if (value := _value_in(line, name)) is not None]
    total = sum(values)
    return total if values and math.isfinite(total) else None


def _value_in(line: str, name: str) -> float | None:
    if not line.startswith(name):
        return None
    rest = line[len(name) :]
    if rest.startswith("{"):
        rest = rest.rpartition("}")[2]
    elif not rest[:1].isspace():
        return None
    try:
        value = float(rest.split()[0])
    except (IndexError, ValueError):
        return None
    return value if math.isfinite(value) else None
