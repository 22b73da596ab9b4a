"""How a worker ends: drain, release, broken setup."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_process import Launcher

# What a busy machine may take for a fraction of a second; a poll, a setup or a job would take longer than this.
AT_ONCE_SECONDS = 15.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_worker_stops_at_once(platform: FakePlatform, launch: Launcher, number: signal.Signals) -> None:
    worker = await launch(platform, "zoo:Zoo")
    await worker.ready()
    await platform.until(lambda: platform.polls)
    assert await worker.seconds_to_exit(number) < AT_ONCE_SECONDS
    assert await worker.exit_code() == 0
    assert "shutdown same thread" in worker.stdout


async def test_a_drain_finishes_the_job_and_claims_no_other(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    worker, gate = await launch(platform, "zoo:Zoo"), tmp_path / "gate"
    job = await platform.submit({"do": "until_there", "path": str(gate)})
    await platform.until(lambda: platform.updates_of(job, "running"))
    other = await platform.submit({"b": 1})
    worker.send(signal.SIGTERM)
    await worker.is_draining()
    assert await worker.get("/health") == (503, '{"status": "draining"}')
    assert (await worker.post("/generate", b"{}"))[0] == 503
    gate.touch()
    assert await worker.exit_code() == 0
    assert (job.status, job.outputs, other.status) == ("done", {"there": True}, "pending")
    assert "shutdown same thread" in worker.stdout


@pytest.mark.parametrize("process", ["0", "1"])
async def test_a_forked_child_that_the_model_ends_is_not_the_worker(
    platform: FakePlatform, launch: Launcher, process: str
) -> None:
    worker = await launch(platform, "zoo:Zoo", SPROCKET_PROCESS=process)
    assert (await platform.run({"do": "end_forks"})).outputs == {"exit_codes": [-signal.SIGTERM]}
    assert (await platform.run({"n": 1})).outputs == {"n": 1}
    assert "SIGTERM received" not in worker.stderr
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0


async def test_an_async_worker_drains(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:AsyncZoo")
    job = await platform.submit({"do": "block", "seconds": 0.5})
    await platform.until(lambda: platform.updates_of(job, "running"))
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert job.status == "done"
    assert "async shutdown" in worker.stdout


@pytest.mark.parametrize(("target", "do"), [("zoo:Zoo", "sleep"), ("zoo:AsyncZoo", "wait")])
async def test_a_job_that_outlasts_the_grace_period_is_released(
    platform: FakePlatform, launch: Launcher, target: str, do: str
) -> None:
    worker = await launch(platform, target, TERMINATION_GRACE_PERIOD_SECONDS="1")
    job = await platform.submit({"do": do, "seconds": 60})
    await platform.until(lambda: platform.updates_of(job, "running"))
    assert 0.5 < await worker.seconds_to_exit(signal.SIGTERM) < AT_ONCE_SECONDS
    assert await worker.exit_code() == 0
    assert job.status == "pending"
    assert platform.updates[-1].body["attempt_token"] == job.token


async def test_a_second_signal_releases_at_once(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo")
    job = await platform.submit({"do": "sleep", "seconds": 60})
    await platform.until(lambda: platform.updates_of(job, "running"))
    worker.send(signal.SIGTERM)
    await worker.says("SIGTERM received")
    assert await worker.seconds_to_exit(signal.SIGTERM) < AT_ONCE_SECONDS
    assert job.status == "pending"


async def test_a_claim_on_its_way_when_the_drain_begins_is_handed_back(
    platform: FakePlatform, launch: Launcher
) -> None:
    platform.rest_of_claim = asyncio.Event()
    worker = await launch(platform, "zoo:Zoo")
    job = await platform.submit({"a": 1})
    await platform.until(lambda: job.status == "running")
    # The headers have been sent: they arrive before what is asked for afterwards.
    await worker.get("/metrics")
    worker.send(signal.SIGTERM)
    await worker.is_draining()
    platform.rest_of_claim.set()
    assert await worker.exit_code() == 0
    assert job.status == "pending"
    assert [update.body["status"] for update in platform.updates_of(job)] == ["pending"]


async def test_a_release_does_not_wait_for_a_platform_that_is_away(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo", TERMINATION_GRACE_PERIOD_SECONDS="1")
    job = await platform.submit({"do": "sleep", "seconds": 60})
    await platform.until(lambda: platform.updates_of(job, "running"))
    await platform.stop()
    assert await worker.seconds_to_exit(signal.SIGTERM) < AT_ONCE_SECONDS
    assert "could not be released" in worker.stderr


async def test_sigterm_in_setup_stops_promptly(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:SlowSetup")
    await worker.says("setting up")
    assert await worker.get("/health") == (503, '{"status": "starting"}')
    assert (await worker.post("/generate", b"{}"))[0] == 503
    assert await worker.seconds_to_exit(signal.SIGTERM) < AT_ONCE_SECONDS
    assert await worker.exit_code() == 0
    assert platform.polls == []


async def test_a_broken_setup_is_shown_and_ends_the_process(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:BrokenSetup")
    assert await worker.exit_code() == 1
    assert "RuntimeError: no weights at /models" in worker.stderr
    assert 'raise RuntimeError("no weights' in worker.stderr
    assert platform.polls == []


async def test_a_request_over_http_is_answered_before_the_end(launch: Launcher, tmp_path: Path) -> None:
    worker, gate = await launch(None, "zoo:Zoo"), tmp_path / "gate"
    await worker.ready()
    posted = asyncio.create_task(worker.post("/generate", f'{{"do": "until_there", "path": "{gate}"}}'.encode()))
    await worker.is_working()
    worker.send(signal.SIGTERM)
    await worker.is_draining()
    gate.touch()
    assert await posted == (200, '{"there":true}')
    assert await worker.exit_code() == 0
    with pytest.raises(aiohttp.ClientConnectorError):
        await worker.get("/health")
