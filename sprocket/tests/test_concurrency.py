"""Several jobs in hand at once: real worker processes against the fake platform."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from pathlib import Path

import pytest
from sprocket_fake_platform import FakeJob, FakePlatform
from sprocket_process import Launcher

BOTH = pytest.mark.parametrize("target", ["crowd:Quartet", "crowd:AsyncQuartet"])
QUIET = {"SPROCKET_HEARTBEAT_SECONDS": "30"}


class Gate:
    """Holds the jobs that wait for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.job = {"do": "hold", "until": str(path)}

    def open(self) -> None:
        self._path.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


async def running(platform: FakePlatform, jobs: list[FakeJob]) -> None:
    await platform.until(lambda: all(job.status == "running" for job in jobs))


@BOTH
async def test_as_many_jobs_are_in_hand_as_the_model_says(
    platform: FakePlatform, launch: Launcher, gate: Gate, target: str
) -> None:
    jobs = await platform.submit_many([{"do": "meet", "n": n} for n in range(4)])
    worker = await launch(platform, target)
    for job in jobs:
        assert (await platform.finished(job)).outputs == job.payload
    assert platform.polls[0].query["max_jobs"] == "4"
    fifth = (await platform.submit_many([gate.job] * 5))[4]
    await worker.is_working(4)
    assert fifth.status == "pending"
    gate.open()
    await platform.finished(fifth)
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert (worker.stdout.count("setup"), worker.stdout.count("shutdown same thread")) == (1, 1)


async def test_a_result_and_the_next_claim_are_one_request(platform: FakePlatform, launch: Launcher) -> None:
    jobs = await platform.submit_many([{"n": n} for n in range(5)])
    await launch(platform, "zoo:Zoo", **QUIET)
    await platform.finished(jobs[-1])
    await platform.until(lambda: len(platform.polls) == 2)
    assert [(len(asked.updates), asked.max_jobs, asked.claimed) for asked in platform.exchanges] == [
        (1, 1, 1),
        (1, 1, 1),
        (1, 1, 1),
        (1, 1, 1),
        (1, 1, 0),
    ]
    assert "max_jobs" not in platform.polls[0].query


async def test_a_poll_that_waits_holds_no_result_up(platform: FakePlatform, launch: Launcher) -> None:
    await launch(platform, "crowd:Quartet", **QUIET)
    long = await platform.submit({"do": "sleep", "seconds": 30})
    await running(platform, [long])
    await platform.until(lambda: platform.polls[-1].query.get("max_jobs") == "3")
    polls = len(platform.polls)
    for n in range(3):
        assert (await platform.run({"n": n})).outputs == {"n": n}
    assert [(len(asked.updates), asked.max_jobs) for asked in platform.exchanges] == 3 * [(1, 0)]
    assert len(platform.polls) == polls + 3


async def test_results_pile_up_while_a_request_is_under_way(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "crowd:AsyncQuartet", **QUIET)
    platform.hold_exchanges = asyncio.Event()
    first = await platform.run({"n": 0})
    others = await platform.submit_many([{"n": n} for n in range(1, 4)])
    await running(platform, others)
    await worker.has_predicted(4)
    assert [job.status for job in others] == 3 * ["running"]
    platform.hold_exchanges.set()
    for job in others:
        await platform.finished(job)
    assert [len(asked.updates) for asked in platform.exchanges] == [1, 3]
    assert first.status == "done"


async def test_one_job_that_was_taken_away_costs_the_others_nothing(
    platform: FakePlatform, launch: Launcher, gate: Gate
) -> None:
    worker = await launch(platform, "crowd:AsyncQuartet", **QUIET)
    jobs = await platform.submit_many([{**gate.job, "n": n} for n in range(4)])
    await running(platform, jobs)
    await platform.give_to_another(jobs[1])
    gate.open()
    for n in (0, 2, 3):
        assert (await platform.finished(jobs[n])).outputs == jobs[n].payload
    await worker.says("dropped, this attempt is over")
    assert (jobs[1].status, jobs[1].outputs) == ("running", None)
    assert worker.stderr.count("dropped, this attempt") == 1
    assert (await platform.run({"next": 1})).status == "done"


async def test_heartbeats_travel_together(platform: FakePlatform, launch: Launcher, gate: Gate) -> None:
    await launch(platform, "crowd:Quartet")
    jobs = await platform.submit_many([gate.job] * 4)
    await platform.until(lambda: all(len(platform.updates_of(job, "running")) >= 2 for job in jobs))
    beats = [asked for asked in platform.exchanges if asked.updates[0]["status"] == "running"]
    assert len(beats[0].updates) == 4
    assert all(asked.max_jobs == 0 for asked in beats)
    gate.open()
    for job in jobs:
        await platform.finished(job)


@BOTH
@pytest.mark.parametrize("how", ["asked", "forced"])
async def test_a_cancel_reaches_the_job_that_it_is_for(
    platform: FakePlatform, launch: Launcher, target: str, how: str
) -> None:
    worker = await launch(platform, target)
    jobs = await platform.submit_many([{"do": "until_cancelled", "name": name} for name in "ab"])
    await platform.until(lambda: all(job.info.get("waits") == job.payload["name"] for job in jobs))
    if how == "asked":
        jobs[0].cancel_requested = True
        assert (await platform.finished(jobs[0])).status == "canceled"
    else:
        await platform.end(jobs[0], "failed", "The deadline has passed")
        await worker.says("dropped, this attempt is over")
    await worker.says("cancel seen by a")
    assert jobs[1].status == "running"
    assert "cancel seen by b" not in worker.stdout
    jobs[1].cancel_requested = True
    await platform.finished(jobs[1])
    assert (await platform.run({"next": 1})).status == "done"


@pytest.mark.parametrize(("target", "do"), [("zoo:Zoo", "until_cancelled"), ("zoo:AsyncZoo", "wait")])
async def test_a_deadline_stops_the_model(platform: FakePlatform, launch: Launcher, target: str, do: str) -> None:
    worker = await launch(platform, target)
    job = await platform.submit({"do": do})
    await platform.until(lambda: platform.updates_of(job, "running"))
    await platform.end(job, "failed", "The deadline has passed")
    await worker.says("cancel")
    assert (await platform.run({"next": 1})).status == "done"
    assert [update.answer for update in platform.updates_of(job)].count(409) == 1
    assert job.info["error"] == "The deadline has passed"


@BOTH
async def test_a_drain_finishes_all_that_is_in_hand(
    platform: FakePlatform, launch: Launcher, gate: Gate, target: str
) -> None:
    worker = await launch(platform, target)
    jobs = await platform.submit_many([gate.job] * 6)
    await worker.is_working(4)
    worker.send(signal.SIGTERM)
    await worker.is_draining()
    gate.open()
    assert await worker.exit_code() == 0
    assert [job.status for job in jobs] == 4 * ["done"] + 2 * ["pending"]
    assert "shutdown same thread" in worker.stdout


async def test_what_outlasts_the_grace_period_is_released(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "crowd:AsyncQuartet", TERMINATION_GRACE_PERIOD_SECONDS="1", **QUIET)
    jobs = await platform.submit_many([{"do": "sleep", "seconds": 60}] * 3)
    await worker.is_working(3)
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert [job.status for job in jobs] == 3 * ["pending"]
    assert [len(asked.updates) for asked in platform.exchanges] == [3]


async def test_an_exit_in_predict_hands_the_other_jobs_back(platform: FakePlatform, launch: Launcher) -> None:
    for target in ("crowd:Quartet", "crowd:AsyncQuartet"):
        worker = await launch(platform, target, **QUIET)
        others = await platform.submit_many([{"do": "sleep", "seconds": 60}] * 2)
        await worker.is_working(2)
        exiting = await platform.submit({"do": "exit", "code": 3})
        assert await worker.exit_code() == 3
        assert (exiting.status, platform.updates_of(exiting)) == ("running", [])
        assert [job.status for job in others] == ["pending", "pending"]
        platform.jobs.clear()


async def test_requests_over_http_share_the_slots(platform: FakePlatform, launch: Launcher, gate: Gate) -> None:
    worker = await launch(platform, "crowd:Quartet", **QUIET)
    jobs = await platform.submit_many([gate.job] * 3)
    await running(platform, jobs)
    posted = asyncio.create_task(worker.post("/generate", json.dumps(gate.job).encode()))
    await worker.is_working(4)
    status, body = await worker.post("/generate", b"{}")
    assert (status, '"busy"' in body) == (503, True)
    gate.open()
    assert (await posted)[0] == 200
    for job in jobs:
        await platform.finished(job)
    assert (await worker.post("/generate", b"{}"))[0] == 200


async def test_results_survive_a_platform_that_is_away(platform: FakePlatform, launch: Launcher, gate: Gate) -> None:
    worker = await launch(platform, "crowd:Quartet", **QUIET)
    jobs = await platform.submit_many([{**gate.job, "n": n} for n in range(4)])
    await worker.is_working(4)
    await platform.stop()
    gate.open()
    await worker.says("result not delivered yet")
    await platform.start()
    for job in jobs:
        assert (await platform.finished(job)).outputs == job.payload
    assert (await platform.run({"next": 1})).status == "done"


async def test_a_batch_that_is_turned_down_is_sent_in_parts(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "crowd:Quartet", **QUIET)
    platform.hold_exchanges = asyncio.Event()
    await platform.run({"n": 0})
    jobs = await platform.submit_many([{"n": n} for n in range(1, 4)])
    await worker.has_predicted(4)
    platform.exchange_statuses = [413, 500, 401]
    platform.hold_exchanges.set()
    for job in jobs:
        assert (await platform.finished(job)).outputs == job.payload
    assert [len(asked.updates) for asked in platform.exchanges][1] == 3


@pytest.mark.parametrize("target", ["zoo:Zoo", "crowd:AsyncQuartet"])
async def test_an_older_platform_gets_results_one_by_one(platform: FakePlatform, launch: Launcher, target: str) -> None:
    platform.older = True
    worker = await launch(platform, target)
    for n in range(3):
        jobs = await platform.submit_many([{"n": n}, {"n": -n}, {"n": n * n}])
        for job in jobs:
            assert (await platform.finished(job)).outputs == job.payload
    assert len(platform.exchanges) == 1
    job = await platform.submit({"do": "sleep", "seconds": 60})
    await platform.until(lambda: platform.updates_of(job, "running"))
    worker.send(signal.SIGTERM)
    await worker.says("SIGTERM received")
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert job.status == "pending"


async def test_uploads_name_their_attempt(platform: FakePlatform, launch: Launcher, tmp_path: Path) -> None:
    await launch(platform, "crowd:Quartet")
    job = await platform.run({"do": "write", "path": str(tmp_path / "o.txt")})
    assert job.status == "done"
    assert platform.upload_requests == [
        {"filename": f"{job.request_id}-o.txt", "request_id": job.request_id, "attempt_token": job.token}
    ]


@pytest.mark.parametrize("where", ["request", "put"])
async def test_an_upload_that_is_too_late_drops_the_job(
    platform: FakePlatform, launch: Launcher, tmp_path: Path, where: str
) -> None:
    worker = await launch(platform, "crowd:AsyncQuartet", **QUIET)
    if where == "request":
        platform.upload_request_status = 409
    else:
        platform.upload_status = 409
    job = await platform.submit({"do": "write", "path": str(tmp_path / "o.txt")})
    await worker.says("dropped, this attempt is over")
    assert (await platform.run({"next": 1})).status == "done"
    assert platform.updates_of(job) == []
    assert "Traceback" not in worker.stderr


async def test_a_concurrency_that_is_none_is_refused(launch: Launcher) -> None:
    worker = await launch(None, "crowd:Nobody")
    assert await worker.exit_code() == 2
    assert worker.stderr.startswith("sprocket: Nobody.concurrency must be a whole number from 1 to 1000")


@pytest.mark.parametrize("target", ["crowd:Crowd", "crowd:AsyncCrowd"])
async def test_two_thousand_jobs_have_one_result_each(platform: FakePlatform, launch: Launcher, target: str) -> None:
    worker = await launch(platform, target)
    jobs = await platform.submit_many([{"n": n} for n in range(2000)])
    await platform.until(lambda: all(job.status == "done" for job in jobs), 60)
    assert all(job.outputs == {"seen": job.payload["n"]} for job in jobs)
    done = [update.body["request_id"] for update in platform.updates if update.body["status"] == "done"]
    assert len(done) == len(set(done)) == 2000
    # Far fewer requests than jobs, and far fewer lines.
    assert len(platform.exchanges) < 1000
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert 0 < worker.stderr.count(" done") < 500


@pytest.mark.parametrize("target", ["zoo:Zoo", "crowd:Crowd", "crowd:AsyncCrowd"])
async def test_connections_that_break_lose_no_job(platform: FakePlatform, launch: Launcher, target: str) -> None:
    await launch(platform, target)
    platform.claim_seconds = 1.0
    platform.hang_ups = random.Random(target)
    jobs = await platform.submit_many([{"n": n} for n in range(40 if target == "zoo:Zoo" else 1000)])
    async with asyncio.timeout(60):
        while not all(job.status == "done" for job in jobs):  # claims run out without anybody telling
            await asyncio.sleep(0.05)
            await platform.end_of_claims()
    taken = [u.body["request_id"] for u in platform.updates if u.body["status"] == "done" and u.answer == 200]
    assert sorted(taken) == sorted(job.request_id for job in jobs)
