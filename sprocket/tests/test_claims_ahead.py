"""Jobs that are claimed before there is room for them: real worker processes against the fake platform."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sprocket_fake_platform import FakeJob, FakePlatform
from sprocket_process import Launcher

from sprocket.pace import AHEAD_LIMIT, STEADY_PREDICTS

QUIET = {"SPROCKET_HEARTBEAT_SECONDS": "30"}


async def _claimed_ahead(platform: FakePlatform, folder: Path) -> tuple[Path, FakeJob, list[FakeJob]]:
    """A gate, a job that runs until that is there, and those behind it, of which the worker has claimed some.

    On a machine that stalls a small job looks like a long one, behind which none is claimed: then it begins anew.
    """
    for number in range(20):
        gate = folder / f"gate-{number}"
        small = await platform.submit_many([{"n": n} for n in range(20)])
        long = await platform.submit({"do": "hold", "until": str(gate)})
        behind = await platform.submit_many([{"n": n} for n in range(20)])
        await platform.until(lambda: long.status == "running" and all(job.status != "running" for job in small))  # noqa: B023
        if any(job.attempt for job in behind):
            return gate, long, behind
        gate.touch()
        for job in [*small, long, *behind]:
            await platform.finished(job)
    raise AssertionError("no job was claimed ahead of its time")


async def test_small_jobs_are_claimed_and_reported_together_and_worked_on_one_by_one(
    platform: FakePlatform, launch: Launcher
) -> None:
    jobs = await platform.submit_many([{"n": n} for n in range(200)])
    await launch(platform, "eager:Eager", **QUIET)
    for job in jobs:
        assert (await platform.finished(job)).outputs == job.payload
    assert {job.attempt for job in jobs} == {1}
    wishes = [exchange.max_jobs for exchange in platform.exchanges]
    assert set(wishes[: STEADY_PREDICTS - 1]) == {1}
    assert max(wishes) > AHEAD_LIMIT
    assert len(wishes) < 100


async def test_jobs_behind_one_that_takes_long_go_back_to_the_queue(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    worker = await launch(platform, "eager:Eager", **QUIET)
    gate, long, behind = await _claimed_ahead(platform, tmp_path)
    await platform.until(lambda: all(job.status == "pending" for job in behind))
    await asyncio.sleep(0.5)  # longer than the patience: nobody claims them again
    assert {job.attempt for job in behind} == {0, 1}
    assert long.status == "running"
    assert (await worker.get("/health"))[0] == 200
    gate.touch()
    for job in [long, *behind]:
        await platform.finished(job)
    assert long.attempt == 1


async def test_jobs_go_back_to_the_queue_though_the_platform_is_away_for_a_moment(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    platform.hand_back_statuses = [503, 503]
    await launch(platform, "eager:Eager", **QUIET)
    gate, long, behind = await _claimed_ahead(platform, tmp_path)
    await platform.until(lambda: all(job.status == "pending" for job in behind))
    assert not platform.hand_back_statuses
    gate.touch()
    for job in [long, *behind]:
        await platform.finished(job)


async def test_a_job_that_waits_for_a_request_over_http_is_kept(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = await launch(platform, "eager:Eager", **QUIET)
    await worker.ready()
    hold = f'{{"do": "hold", "until": "{gate}"}}'.encode()
    asked = asyncio.create_task(worker.post("/generate", hold))
    await worker.is_working(1)
    job = await platform.submit({"n": 1})
    await platform.until(lambda: job.status == "running")
    await asyncio.sleep(0.5)  # longer than the patience for jobs that were claimed ahead
    assert (job.status, job.attempt) == ("running", 1)
    gate.touch()
    assert (await asked)[0] == 200
    assert (await platform.finished(job)).outputs == {"n": 1}
    assert job.attempt == 1


async def test_a_job_that_came_with_a_report_waits_for_a_request_over_http_and_is_kept(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    before = await platform.submit({"n": 0})
    platform.exchange_statuses = [503] * 100
    worker = await launch(platform, "eager:Eager", **QUIET)
    await worker.has_predicted(1)
    job = await platform.submit({"n": 1})
    asked = asyncio.create_task(worker.post("/generate", f'{{"do": "hold", "until": "{gate}"}}'.encode()))
    await worker.is_working(1)  # the slot is free while the report is on its way
    platform.exchange_statuses.clear()
    await platform.finished(before)
    await platform.until(lambda: job.status == "running")
    await asyncio.sleep(1.0)  # longer than the patience for jobs that were claimed ahead
    assert (job.status, job.attempt) == ("running", 1)
    gate.touch()
    assert (await asked)[0] == 200
    assert (await platform.finished(job)).outputs == {"n": 1}
    assert job.attempt == 1
