"""A thousand workers that wait: the server's memory, and how fast one of them has a job that comes in."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import msgspec
import uvloop

from harness.errors import BenchmarkError
from harness.memory import resident_mib
from harness.raw_http import connect, get, post
from harness.report import Row, percentile
from queue_systems.base import DOCUMENT, Slots
from queue_systems.machineshop_http import Machineshop, deployment_of

MEMORY_BAR_MIB = 300.0
WAKE_UP_BAR_MS = 50.0
DEPLOYMENTS = 10
POLL_SECONDS = 60
# The whole of it, before the first poll comes back with nothing.
LIMIT_SECONDS = 55.0
# For the server to have taken in all polls.
SETTLE_SECONDS = 1.0


@dataclass(frozen=True)
class Polls:
    """What was measured.

    Args:
        memory_mib: of the server, while all wait and at the end.
        wake_up_ms: from each submit to the answer of the poll that it wakes.
    """

    memory_mib: list[float]
    wake_up_ms: list[float]


def measure(ours: Sequence[Machineshop], polls: int) -> list[Row]:
    """The rows of all of ours; the first, on the embedded store, has the bars."""
    print(f"\n{polls:,} long polls at once, on {DEPLOYMENTS} deployments, woken one after another:")
    rows = []
    for system in ours:
        names = [f"polls-{number}" for number in range(DEPLOYMENTS)]
        for name in names:
            system.platform.copy_deployment(deployment_of(Slots.ONE), name)
        found = uvloop.run(_measure(system, names, polls))
        p50, p99 = percentile(found.wake_up_ms, 50), percentile(found.wake_up_ms, 99)
        memory = max(found.memory_mib)
        print(f"  {system.name}  woken after {p50:.2f} ms (p99 {p99:.2f} ms), server {memory:.0f} MiB", flush=True)
        memory_bar, wake_up_bar = (MEMORY_BAR_MIB, WAKE_UP_BAR_MS) if system is ours[0] else (None, None)
        rows += [
            Row("polls_memory", "MiB", "lower", system.name, memory, bar=memory_bar),
            Row("polls_wake_up_p99", "ms", "lower", system.name, p99, bar=wake_up_bar),
        ]
    return rows


async def _measure(system: Machineshop, names: Sequence[str], polls: int) -> Polls:
    async with asyncio.timeout(LIMIT_SECONDS):
        woken: asyncio.Queue[bytes] = asyncio.Queue()
        waiting = []
        for number in range(polls):
            waiting.append(await connect(system.platform.port, woken.put_nowait))
            waiting[-1].send(_poll(system, names[number % len(names)], number))
        await asyncio.sleep(SETTLE_SECONDS)
        if not woken.empty():
            raise BenchmarkError(f"{system.name}: a poll was answered before there was a job: {woken.get_nowait()!r}")
        memory = [resident_mib([system.platform.pid])]
        acknowledged: asyncio.Queue[bytes] = asyncio.Queue()
        submitter = await connect(system.platform.port, acknowledged.put_nowait)
        wake_up_ms = []
        for number in range(polls):
            began = time.monotonic()
            submitter.send(_submit(system, names[number % len(names)]))
            answer = await woken.get()
            wake_up_ms.append((time.monotonic() - began) * 1e3)
            if b'"request_id"' not in answer:
                raise BenchmarkError(f"{system.name}: a poll was answered without a job: {answer!r}")
            await acknowledged.get()
        memory.append(resident_mib([system.platform.pid]))
        for connection in [*waiting, submitter]:
            connection.close()
        return Polls(memory, wake_up_ms)


def _poll(system: Machineshop, name: str, number: int) -> bytes:
    wish = {"model": name, "hostname": f"worker-{number}", "timeout": f"{POLL_SECONDS}s", "claim_timeout": 600}
    return get(f"/internal/v1/queue/retrieve?{urlencode(wish)}", system.platform.api_key)


def _submit(system: Machineshop, name: str) -> bytes:
    body = msgspec.json.encode({"model": name, "payload": DOCUMENT})
    return post("/v1/queue/submit", system.platform.api_key, body)
