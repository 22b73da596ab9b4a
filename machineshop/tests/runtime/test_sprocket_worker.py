"""Real workers of the SDK under the process runtime, with a platform beside them that has one job to give."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from machineshop.runtime.base import Replica, ReplicaStatus
from runtime.harness import ProcessWorld, eventually, one, ready

SLOW = """
import pathlib, time
import sprocket

class Slow(sprocket.Sprocket):
    def setup(self):
        while not pathlib.Path("go").exists():
            time.sleep(0.02)

    def predict(self, args):
        time.sleep(60)
        return {}
"""
CLAIM = {
    "request_id": "job-1",
    "payload": {},
    "priority": 0,
    "info": {},
    "attempt": 1,
    "attempt_token": "token-1",
    "retries": 0,
    "created_at": "2026-01-01T00:00:00Z",
    "claim_expires_at": "2026-01-01T00:01:30Z",
}


class QueuePlatform:
    """Gives out one job, and takes notes of what is said of it."""

    def __init__(self) -> None:
        self.jobs = [CLAIM]
        self.updates: list[dict[str, Any]] = []
        self.given = asyncio.Event()

    async def retrieve(self, _: web.Request) -> web.Response:
        if self.jobs:
            self.given.set()
            return web.json_response({"data": self.jobs.pop()})
        await asyncio.sleep(20)
        return web.json_response({"data": None})

    async def status(self, request: web.Request) -> web.Response:
        update = await request.json()
        self.updates.append(update)
        answer = {"request_id": update["request_id"], "status": update["status"], "cancel_requested": False}
        return web.json_response(answer)


@pytest.fixture
async def platform(machine: ProcessWorld) -> AsyncIterator[QueuePlatform]:
    platform = QueuePlatform()
    app = web.Application()
    app.router.add_get("/internal/v1/queue/retrieve", platform.retrieve)
    app.router.add_post("/internal/v1/videos/status", platform.status)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    machine.platform_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield platform
    await runner.cleanup()


async def setting_up(machine: ProcessWorld) -> Replica:
    machine.image = machine.registry.add({"slow.py": SLOW}, "python", "-m", "sprocket", "slow:Slow", "--queue")
    await machine.runtime.apply(machine.spec(grace_period_seconds=300), 1)
    return await one(machine.runtime, lambda r: r.message == "its setup() is still running")


def let_go(machine: ProcessWorld, replica: Replica) -> None:
    (Path(machine.data_dir) / "replicas" / replica.id / "work" / "go").touch()


async def test_a_worker_that_sets_up_is_said_to_do_so(machine: ProcessWorld, platform: QueuePlatform) -> None:
    replica = await setting_up(machine)
    assert (replica.status, replica.ready_since) == (ReplicaStatus.RUNNING, None)
    let_go(machine, replica)
    (replica,) = await ready(machine.runtime, 1)
    assert replica.message is None


async def test_stopping_all_has_a_worker_hand_back_the_job_that_it_cannot_finish(
    machine: ProcessWorld, platform: QueuePlatform
) -> None:
    replica = await setting_up(machine)
    let_go(machine, replica)
    await asyncio.wait_for(platform.given.wait(), 60)
    await machine.runtime.stop_all(4.0)
    assert [update["status"] for update in platform.updates if update["status"] != "running"] == ["pending"]
    assert platform.updates[-1]["attempt_token"] == "token-1"
    (ended,) = await machine.runtime.observe()
    assert (ended.status, ended.reason, ended.exit_code) == (ReplicaStatus.TERMINATED, "Completed", 0)

    async def told() -> bool:
        return machine.watcher.of(replica.id) == ["key", "exited"]

    await eventually(told)
