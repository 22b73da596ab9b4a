"""kill -9 of the deliverer in the middle: everything is told in the end, and no delivery id comes twice."""

import asyncio
import math
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from machineshop.store import webhooks as store
from machineshop.store.database import Database
from webhooks.outbox import Outbox
from webhooks.receiver import Receiver

JOBS = 80
KILLS = 3
BETWEEN_KILLS = 15
# Past every claim and pause that the process before has left.
STEP_SECONDS = 3600.0


@asynccontextmanager
async def delivering(url: str, keys: Path, ahead_seconds: float) -> AsyncIterator[None]:
    """A process that delivers, until it is killed."""
    script = str(Path(__file__).with_name("deliverer_process.py"))
    process = await asyncio.create_subprocess_exec(sys.executable, script, url, str(keys), str(ahead_seconds))
    try:
        yield
        assert process.returncode is None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_no_delivery_comes_twice_whatever_is_killed(
    outbox: Outbox, receiver: Receiver, database: Database, database_url: str, tmp_path: Path
) -> None:
    async def unreliable(_request: web.Request) -> web.Response:
        number = len(receiver.received)
        await asyncio.sleep(0.01 * (number % 4))
        return web.Response(status=500 if number % 5 == 0 and number < KILLS * BETWEEN_KILLS else 200)

    async def all_told() -> None:
        while await database.read(store.due, math.inf, set(), 1):
            await asyncio.sleep(0.02)

    receiver.answering = unreliable
    jobs = await outbox.canceled(receiver.url, JOBS)
    for number in range(1, KILLS + 1):
        async with delivering(database_url, tmp_path / "secrets-key", STEP_SECONDS * number):
            await receiver.until(number * BETWEEN_KILLS)
    async with delivering(database_url, tmp_path / "secrets-key", STEP_SECONDS * (KILLS + 1)):
        await asyncio.wait_for(all_told(), 60)
    assert max(Counter(one.delivery for one in receiver.received).values()) == 1
    came = Counter(one.id for one in receiver.received)
    assert set(came) == {f"{job.id}.0" for job in jobs}
    for job in jobs:
        webhook = await outbox.of(job)
        assert webhook.delivered_at is not None
        assert came[f"{job.id}.0"] <= webhook.tries
