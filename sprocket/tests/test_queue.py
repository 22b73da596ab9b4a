"""Queue mode: a real worker process against the fake platform."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web
from sprocket_fake_platform import FakeJob, FakePlatform
from sprocket_process import Launcher

PROBE_SECONDS = 2.0  # so long the platform waits for an answer of /health


async def test_jobs_are_worked_off_over_one_connection(platform: FakePlatform, launch: Launcher) -> None:
    await launch(platform, "zoo:Zoo", MACHINESHOP_REPLICA_ID="replica-1")
    for n in range(20):
        job = await platform.run({"n": n})
        assert (job.status, job.outputs) == ("done", {"n": n})
        assert [update.body["attempt_token"] for update in platform.updates_of(job)] == [job.token]
    query = dict(platform.polls[0].query)
    assert query == {"timeout": "20s", "model": "hello", "hostname": "replica-1", "claim_timeout": "90"}
    assert len(platform.connections) == 1


@pytest.mark.parametrize("target", ["zoo:AsyncZoo", "zoo:instance"])
async def test_other_kinds_of_workers(platform: FakePlatform, launch: Launcher, target: str) -> None:
    await launch(platform, target)
    assert (await platform.run({"a": [1]})).outputs == {"a": [1]}


async def test_a_sprocket_worker_gets_the_request(platform: FakePlatform, launch: Launcher) -> None:
    job = await platform.submit({"a": 1}, priority=7)
    job.info["by"] = "ada"
    await launch(platform, "zoo:Requests")
    await platform.finished(job)
    assert job.outputs == {
        "input": {"a": 1},
        "id": job.request_id,
        "priority": 7,
        "info": {"by": "ada"},
        "header": None,
    }


@pytest.mark.parametrize("do", ["until_there", "spin_until_there"])
async def test_health_answers_and_the_claim_is_renewed_while_predict_runs(
    platform: FakePlatform, launch: Launcher, tmp_path: Path, do: str
) -> None:
    worker, gate = await launch(platform, "zoo:Zoo"), tmp_path / "gate"
    job = await platform.submit({"do": do, "path": str(gate)})
    await platform.until(lambda: job.status == "running")
    await worker.is_working()
    took_seconds = []
    for _ in range(20):
        started_at = time.monotonic()
        assert await worker.get("/health") == (200, '{"status": "healthy"}')
        took_seconds.append(time.monotonic() - started_at)
    await platform.until(lambda: len(platform.updates_of(job, "running")) >= 2)
    gate.touch()
    await platform.finished(job)
    beats = platform.updates_of(job, "running")
    assert all(beat.body["payload"] == {} and beat.body["attempt_token"] == job.token for beat in beats)
    ages = [beat.body["progress_age_seconds"] for beat in beats]
    assert ages == sorted(ages)
    # The median: what a busy test machine does to a single answer says nothing about the worker.
    assert sorted(took_seconds)[10] < PROBE_SECONDS


async def test_a_blocking_async_predict_blocks_nothing_else(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:AsyncZoo")
    job = await platform.submit({"do": "block", "seconds": 0.8})
    await platform.until(lambda: platform.updates_of(job, "running"))
    assert (await worker.get("/health"))[0] == 200
    assert (await platform.finished(job)).status == "done"


async def test_failures_say_what_went_wrong(platform: FakePlatform, launch: Launcher) -> None:
    await launch(platform, "zoo:Zoo")
    complaints = {
        "raise_": "ValueError: no such xxxx",
        "none": "OutputError: predict returned None",
        "text": "OutputError: predict returned str",
        "nan": "outputs['scores'][1] is nan; JSON has no NaN",
        "object": "outputs['thing']['deep'][0] is object",
        "missing_file": "no file at /nowhere/at/all.png",
        "big_news": "InfoError: emit_info takes less than 4096 bytes",
    }
    for do, complaint in complaints.items():
        job = await platform.run({"do": do})
        assert job.status == "failed"
        assert complaint in job.info["error"]
    failed = await platform.run({"do": "raise_", "size": 100_000})
    assert len(failed.info["error"]) <= 2_000
    assert failed.info["traceback"].endswith("xxx")
    assert len(failed.info["traceback"]) <= 3_000
    assert (await platform.run({"still": "alive"})).status == "done"


async def test_an_async_failure_is_reported(platform: FakePlatform, launch: Launcher) -> None:
    await launch(platform, "zoo:AsyncZoo")
    job = await platform.run({"do": "raise"})
    assert (job.status, job.info["error"]) == ("failed", "KeyError: 'nothing'")
    assert "zoo.py" in job.info["traceback"]


async def test_info_is_merged_and_sent_soon(platform: FakePlatform, launch: Launcher, tmp_path: Path) -> None:
    worker, gate = await launch(platform, "zoo:Zoo", SPROCKET_HEARTBEAT_SECONDS="30"), tmp_path / "gate"
    job = await platform.submit({"do": "news", "path": str(gate)})
    await platform.until(lambda: job.info.get("step") == "two")
    beats = platform.updates_of(job, "running")
    # Meant are 200 ms, on a machine that is not busy; without hurry it would be 30 s.
    assert beats[-1].at - platform.claimed_at[job.request_id] < 20
    gate.touch()
    await platform.finished(job)
    assert {key: value for beat in beats for key, value in beat.body["info"].items()} == {
        "a": 1,
        "step": "two",
        "thread": True,
    }
    assert len(beats) < 3, "one, as three were told in a moment; on a machine that halted meanwhile, two"
    last = platform.updates_of(job, "done")[0].body["info"]
    assert set(last) - {"sprocket"} == {"last"}
    assert len(platform.updates_of(job)) == len(beats) + 1
    assert f"[{job.request_id}] half way" in worker.stderr


async def test_a_cancel_reaches_sync_code(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo")
    job = await platform.submit({"do": "until_cancelled"})
    await platform.until(lambda: job.info.get("step") == "waiting")
    job.cancel_requested = True
    await platform.finished(job)
    assert (job.status, job.outputs) == ("canceled", None)
    await worker.says("cancel seen")
    assert (await platform.run({"next": 1})).status == "done"


async def test_a_cancel_reaches_async_code(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:AsyncZoo")
    job = await platform.submit({"do": "wait"})
    await platform.until(lambda: job.status == "running")
    job.cancel_requested = True
    assert (await platform.finished(job)).status == "canceled"
    await worker.says("cancelled in await")
    assert (await platform.run({"next": 1})).status == "done"


@pytest.mark.parametrize(("target", "do"), [("zoo:Zoo", "until_cancelled"), ("zoo:AsyncZoo", "wait")])
async def test_a_job_given_to_another_worker_is_dropped(
    platform: FakePlatform, launch: Launcher, target: str, do: str
) -> None:
    worker = await launch(platform, target)
    job = await platform.submit({"do": do})
    await platform.until(lambda: platform.updates_of(job, "running"))
    await platform.give_to_another(job)
    await worker.says("dropped, this attempt is over")
    assert (await platform.run({"next": 1})).status == "done"
    assert (job.status, job.outputs) == ("running", None)
    stale = [update for update in platform.updates_of(job) if update.answer == 409]
    assert [update.body["status"] for update in stale] == ["running"]
    assert 'outcome="dropped"} 1.0' in (await worker.get("/metrics"))[1]


async def test_a_stale_result_is_sent_once_and_forgotten(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    worker, gate = await launch(platform, "zoo:Zoo", SPROCKET_HEARTBEAT_SECONDS="30"), tmp_path / "gate"
    job = await platform.submit({"do": "until_there", "path": str(gate)})
    await platform.until(lambda: job.status == "running")
    await platform.give_to_another(job)
    gate.touch()
    await worker.says("dropped")
    assert (await platform.run({"next": 1})).status == "done"
    assert [(update.body["status"], update.answer) for update in platform.updates_of(job)] == [("done", 409)]


async def test_a_result_is_offered_until_the_platform_answers(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo", SPROCKET_HEARTBEAT_SECONDS="30")
    platform.update_statuses = [500, 503, 429, 401]
    job = await platform.run({"a": 1})
    assert (job.status, job.outputs) == ("done", {"a": 1})
    assert [update.answer for update in platform.updates_of(job)] == [500, 503, 429, 401, 200]
    await worker.says("result not delivered yet")


async def test_the_platform_may_be_away_at_the_start_and_at_the_result(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    await platform.stop()
    worker = await launch(platform, "zoo:Zoo")
    await worker.says("no job could be claimed, trying on: cannot connect to 127.0.0.1")
    assert (await worker.get("/health"))[0] == 200
    await platform.start()
    job = await platform.submit({"do": "until_there", "path": str(gate)})
    await platform.until(lambda: job.status == "running")
    await platform.stop()
    gate.touch()
    await worker.says("result not delivered yet")
    await platform.start()
    assert (await platform.finished(job)).outputs == {"there": True}
    assert (await platform.run({"next": 1})).status == "done"


async def test_a_refused_result_fails_the_job(platform: FakePlatform, launch: Launcher) -> None:
    await launch(platform, "zoo:Zoo", SPROCKET_HEARTBEAT_SECONDS="30")
    platform.update_statuses = [413]
    job = await platform.run({"a": 1})
    assert job.status == "failed"
    assert "413: as the test wants it" in job.info["error"]


def odd_answers() -> list[web.Response]:
    return [
        web.Response(status=204),
        web.Response(status=200),
        web.Response(text="<html>"),
        web.json_response([]),
        web.json_response({"data": "text"}),
        web.json_response({"data": {"payload": {}}}),
        web.json_response({}),
        web.Response(status=502, text="bad gateway"),
    ]


async def test_odd_answers_do_not_end_the_loop(platform: FakePlatform, launch: Launcher) -> None:
    platform.claim_answers = odd_answers()
    await launch(platform, "zoo:Zoo")
    await platform.until(lambda: not platform.claim_answers)
    assert (await platform.run({"a": 1})).status == "done"


async def test_an_empty_answer_at_once_is_no_reason_to_hurry(platform: FakePlatform, launch: Launcher) -> None:
    platform.poll_seconds = 0.0
    worker = await launch(platform, "zoo:Zoo")
    await worker.ready()
    await platform.until(lambda: len(platform.polls) >= 4)
    first = len(platform.polls)
    started_at = time.monotonic()
    await platform.until(lambda: len(platform.polls) >= first + 10)
    assert time.monotonic() - started_at > 0.3


async def test_a_wrong_key_is_said_without_the_key(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo", TOGETHER_API_KEY="msk_wrong")
    await worker.says("401: wrong key (is TOGETHER_API_KEY a key for this deployment?)")
    assert "msk_wrong" not in worker.stderr


async def test_a_payload_that_is_no_object_fails_the_job(platform: FakePlatform, launch: Launcher) -> None:
    await launch(platform, "zoo:Zoo")
    for payload, kind in (("text", "str"), ([1], "list"), (7, "int")):
        job = await platform.run(payload)
        assert (job.status, job.info["error"]) == ("failed", f"the payload is not an object but {kind}")


@pytest.mark.parametrize(("do", "code"), [("exit", 3), ("exit", 0), ("vanish", 4)])
async def test_an_exit_in_predict_ends_the_process_and_reports_nothing(
    platform: FakePlatform, launch: Launcher, do: str, code: int
) -> None:
    worker = await launch(platform, "zoo:Zoo")
    job = await platform.submit({"do": do, "code": code})
    assert await worker.exit_code() == code
    assert (job.status, platform.updates_of(job)) == ("running", [])


async def test_a_claimed_job_waits_for_a_request_over_http_and_is_renewed(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    worker, gate = await launch(platform, "zoo:Zoo"), tmp_path / "gate"
    await worker.ready()
    posted = asyncio.create_task(worker.post("/generate", f'{{"do": "until_there", "path": "{gate}"}}'.encode()))
    await worker.is_working()
    job: FakeJob = await platform.submit({"a": 1})
    await platform.until(lambda: platform.updates_of(job, "running"))
    assert not posted.done()
    gate.touch()
    assert (await posted)[0] == 200
    assert (await platform.finished(job)).outputs == {"a": 1}


async def test_a_script_can_run_itself(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch.start("script.py", "--queue", "--port", "0", "--own-flag", platform=platform)
    await worker.ready()
    assert (await platform.run({"a": 1})).outputs == {"doubled": 2}


async def test_polls_say_the_version_of_the_image(launch: Launcher, platform: FakePlatform) -> None:
    await launch(platform, "zoo:Zoo", VERSION="2026.11")
    await platform.until(lambda: platform.polls)

    assert platform.polls[0].headers["x-worker-version"] == "2026.11"
