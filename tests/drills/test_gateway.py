"""Requests through the gateway while replicas are killed, and ten thousand of them at once for one that sleeps."""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from platform_process import PlatformProcess, wait_for, write_worker

pytestmark = pytest.mark.timeout(600)

REPLICAS = 3
KILLS = 6
CALLERS = 12
MANY = 10_000
WAITING = 500
ANSWER_SECONDS = 240.0
MEMORY_MIB = 400

WORKER = """
import asyncio, os
import sprocket

class Worker(sprocket.AsyncSprocket):
    concurrency = 64

    async def predict(self, args):
        await asyncio.sleep(args.get("seconds", 0))
        return {"number": args["number"], "pid": os.getpid()}
"""


def tables(least: int, most: int) -> str:
    return f'[deploy]\ngpu_type = "none"\ngpu_count = 0\nmemory = 1\nmin_replicas = {least}\nmax_replicas = {most}\n'


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformProcess]:
    """One of the drill's own, which lets few requests wait."""
    process = PlatformProcess(
        tmp_path / "platform", "--gateway-max-held", str(WAITING), "--gateway-key-concurrency", "20000"
    )
    process.folder.mkdir()
    process.start()
    yield process
    process.close()


class Caller:
    """Sends requests one after another until it is told to stop; counts how they ended.

    Args:
        get: They may be repeated; otherwise they may not.
    """

    def __init__(self, *, get: bool) -> None:
        self.ends: Counter[str] = Counter()
        self.stop = False
        self._get = get

    async def run(self, session: aiohttp.ClientSession, name: str) -> None:
        number = 0
        while not self.stop:
            number += 1
            self.ends[await (self._health(session, name) if self._get else self._predict(session, name, number))] += 1

    async def _predict(self, session: aiohttp.ClientSession, name: str, number: int) -> str:
        url = f"/v1/deployment-request/{name}/generate"
        async with session.post(url, json={"number": number, "seconds": 0.02}) as answer:
            body = await answer.json()
            if answer.status == 200:
                assert body["number"] == number
                return "answered"
            return str(body["error"]["code"])

    async def _health(self, session: aiohttp.ClientSession, name: str) -> str:
        async with session.get(f"/v1/deployment-request/{name}/openapi.json") as answer:
            return "answered" if answer.status == 200 else str(answer.status)


def test_replicas_are_killed_at_random(platform: PlatformProcess, tmp_path: Path) -> None:
    platform.deploy(write_worker(tmp_path / "worker", "struck", WORKER, tables=tables(REPLICAS, REPLICAS)))
    callers = [Caller(get=number % 2 == 0) for number in range(CALLERS)]
    asyncio.run(_under_load(platform, "struck", callers))
    repeatable = sum((caller.ends for caller in callers[::2]), Counter[str]())
    others = sum((caller.ends for caller in callers[1::2]), Counter[str]())
    print(f"\nmay be repeated: {dict(repeatable)}; may not: {dict(others)}")
    assert set(repeatable) == {"answered"}
    # What was in hand of a replica that was killed: no more than each caller's one request.
    assert set(others) <= {"answered", "replica_unreachable"}
    assert others["replica_unreachable"] <= KILLS * CALLERS // 2


async def _under_load(platform: PlatformProcess, name: str, callers: list[Caller]) -> None:
    key = {"Authorization": f"Bearer {platform.api_key}"}
    chance = random.Random(7)
    async with aiohttp.ClientSession(platform.base_url, headers=key) as session:
        running = [asyncio.create_task(caller.run(session, name)) for caller in callers]
        try:
            for _ in range(KILLS):
                os.kill(chance.choice(await _pids(session, name)), signal.SIGKILL)
                await _answers(callers, 100, running)
        finally:
            for caller in callers:
                caller.stop = True
            await asyncio.gather(*running)


async def _pids(session: aiohttp.ClientSession, name: str) -> list[int]:
    """The processes that answer."""
    found = set()
    for number in range(2 * REPLICAS):
        async with session.post(f"/v1/deployment-request/{name}/generate", json={"number": number}) as answer:
            if answer.status == 200:
                found.add((await answer.json())["pid"])
    return sorted(found)


async def _answers(callers: list[Caller], count: int, running: list[asyncio.Task[None]]) -> None:
    """Return once so many more have come."""
    wanted = sum(caller.ends["answered"] for caller in callers) + count
    async with asyncio.timeout(ANSWER_SECONDS):
        while sum(caller.ends["answered"] for caller in callers) < wanted:
            assert not any(task.done() for task in running), [task.exception() for task in running if task.done()]
            await asyncio.sleep(0.01)


def test_ten_thousand_requests_at_once_for_a_deployment_at_zero(platform: PlatformProcess, tmp_path: Path) -> None:
    platform.deploy(write_worker(tmp_path / "worker", "asleep", WORKER, tables=tables(0, 1)))
    wait_for(lambda: platform.deployment("asleep")["status"] == "ScaledToZero", "it sleeps")
    ends = asyncio.run(_at_once(platform))
    most_mib = peak_mib(platform.pid)
    print(f"\n{MANY} requests: {dict(ends)}; the server had {most_mib:.0f} MiB at most")
    assert sum(ends.values()) == MANY
    assert set(ends) == {"200", "503 no_ready_replica"}
    assert ends["200"] >= WAITING
    assert most_mib < MEMORY_MIB


async def _at_once(platform: PlatformProcess) -> Counter[str]:
    """How the requests ended."""
    ends: Counter[str] = Counter()
    body = json.dumps({"number": 1}).encode()
    head = (
        "POST /v1/deployment-request/asleep/generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {platform.api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    # Of so many connections that are made at once a busy client would let the server wait for the first request.
    connecting = asyncio.Semaphore(100)

    async def ask() -> None:
        async with connecting:
            reader, writer = await asyncio.open_connection("127.0.0.1", platform.port)
            writer.write(head.encode() + body)
        answer = await reader.read()
        writer.close()
        assert answer, "the server hung up without an answer"
        lines, _, text = answer.partition(b"\r\n\r\n")
        status = lines.split(b" ")[1].decode()
        if status != "200":
            assert b"\r\nretry-after: " in lines.lower()
            status = f"{status} {json.loads(text)['error']['code']}"
        ends[status] += 1

    async with asyncio.timeout(ANSWER_SECONDS):
        await asyncio.gather(*(ask() for _ in range(MANY)))
    return ends


def peak_mib(pid: int) -> float:
    """The most memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    (peak,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
    return peak / 1024
