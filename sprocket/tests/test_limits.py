"""Time limits, and predicts that do not stop: the job ends, and the model works again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sprocket_fake_platform import FakeJob, FakePlatform
from sprocket_process import Launcher

BOTH_FORMS = pytest.mark.parametrize("form", ["0", "1"], ids=["thread", "process"])
IMPATIENT = {"SPROCKET_CANCEL_GRACE_SECONDS": "0.2"}


@BOTH_FORMS
@pytest.mark.parametrize(("target", "do"), [("zoo:Limited", "until_cancelled"), ("zoo:AsyncLimited", "wait")])
async def test_a_job_that_takes_too_long_is_told_to_stop_and_fails(
    platform: FakePlatform, launch: Launcher, target: str, do: str, form: str
) -> None:
    worker = await launch(platform, target, SPROCKET_PROCESS=form)
    job = await platform.run({"do": do})
    assert (job.status, job.info["error"]) == (
        "failed",
        "TimeLimitError: predict took longer than its time_limit_seconds, 1 s",
    )
    await worker.says("cancel seen" if do == "until_cancelled" else "cancelled in await")
    assert (await platform.run({"n": 1})).status == "done"


@BOTH_FORMS
async def test_a_result_that_comes_after_the_time_limit_does_not_count(
    platform: FakePlatform, launch: Launcher, form: str
) -> None:
    await launch(platform, "zoo:Limited", SPROCKET_PROCESS=form)
    job = await platform.run({"do": "sleep", "seconds": 1.5})
    assert (job.status, job.outputs) == ("failed", None)
    assert (await platform.run({"n": 1})).status == "done"


async def test_the_time_limit_holds_over_http_too(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Limited")
    await worker.ready()
    status, body = await worker.post("/generate", b'{"do": "until_cancelled"}')
    assert (status, "longer than its time_limit_seconds" in body) == (500, True)


async def cancelled(platform: FakePlatform, job: FakeJob) -> None:
    await platform.until(lambda: job.status == "running")
    job.cancel_requested = True


@pytest.mark.parametrize(("target", "do"), [("zoo:Zoo", "sleep"), ("zoo:AsyncZoo", "block")])
async def test_a_process_that_ignores_a_cancel_is_replaced(
    platform: FakePlatform, launch: Launcher, target: str, do: str
) -> None:
    worker = await launch(platform, target, SPROCKET_PROCESS="1", **IMPATIENT)
    job = await platform.submit({"do": do, "seconds": 600})
    await cancelled(platform, job)
    assert (await platform.finished(job)).status == "canceled"
    next_one = await platform.submit({"n": 1})
    assert (await platform.finished(next_one)).outputs == {"n": 1}
    assert "the model is ready again" in worker.stderr
    assert next_one.attempt == 1


async def test_a_process_that_ignores_its_time_limit_is_replaced(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Limited", SPROCKET_PROCESS="1", **IMPATIENT)
    job = await platform.run({"do": "sleep", "seconds": 600})
    assert job.info["error"].startswith("TimeLimitError")
    assert (await platform.run({"n": 1})).outputs == {"n": 1}
    assert worker.process.returncode is None


async def test_a_process_that_ignores_that_its_job_was_taken_away_is_replaced(
    platform: FakePlatform, launch: Launcher
) -> None:
    worker = await launch(platform, "zoo:Zoo", SPROCKET_PROCESS="1", **IMPATIENT)
    job = await platform.submit({"do": "sleep", "seconds": 600})
    await platform.until(lambda: job.status == "running")
    await platform.give_to_another(job)
    await worker.says("the model is ready again")
    assert (await platform.run({"n": 1})).outputs == {"n": 1}


async def test_jobs_beside_the_one_that_does_not_stop_are_handed_back(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "crowd:Quartet", SPROCKET_PROCESS="1", **IMPATIENT)
    stuck, other = await platform.submit_many([{"do": "sleep", "seconds": 600}, {"do": "until_cancelled", "name": "b"}])
    await platform.until(lambda: other.info.get("waits"))
    await cancelled(platform, stuck)
    assert (await platform.finished(stuck)).status == "canceled"
    await worker.says("released: another worker may have it")
    await platform.until(lambda: platform.updates_of(other, "pending"))
    await platform.until(lambda: other.attempt == 2)
    assert worker.stderr.count("released") == 1
    assert "the model is ready again" in worker.stderr


async def test_nothing_is_claimed_while_a_process_is_replaced(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    worker = await launch(platform, "zoo:GatedSetup", SPROCKET_PROCESS="1", GATE=str(gate), **IMPATIENT)
    job = await platform.submit({"do": "sleep", "seconds": 600})
    await platform.until(lambda: job.status == "running")
    gate.unlink()
    job.cancel_requested = True
    await platform.finished(job)
    assert await worker.get("/health") == (503, '{"status": "starting"}')
    assert (await worker.post("/generate", b"{}"))[0] == 503
    polls = len(platform.polls)
    next_one = await platform.submit({"n": 1})
    assert (await worker.get("/health"))[0] == 503
    assert (len(platform.polls), next_one.status) == (polls, "pending")
    gate.touch()
    assert (await platform.finished(next_one)).outputs == {"n": 1}
    assert (await worker.get("/health"))[0] == 200


@pytest.mark.parametrize(("target", "do"), [("crowd:Quartet", "sleep"), ("zoo:AsyncZoo", "block")])
async def test_a_thread_that_ignores_a_cancel_ends_the_worker_and_hands_the_rest_back(
    platform: FakePlatform, launch: Launcher, target: str, do: str
) -> None:
    worker = await launch(platform, target, **IMPATIENT)
    stuck = await platform.submit({"do": do, "seconds": 600})
    await platform.until(lambda: stuck.status == "running")
    others = await platform.submit_many([{"do": "until_cancelled", "name": "b"}] if target == "crowd:Quartet" else [])
    await platform.until(lambda: all(other.info.get("waits") for other in others))
    stuck.cancel_requested = True
    assert await worker.exit_code() == 75
    assert stuck.status == "canceled"
    assert [other.status for other in others] == ["pending" for _ in others]
    assert [update.body["status"] for update in platform.updates_of(stuck)][-1] == "canceled"


async def test_a_client_that_hangs_up_ends_no_model(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Zoo", **IMPATIENT)
    await worker.ready()
    posted = asyncio.create_task(worker.post("/generate", b'{"do": "sleep", "seconds": 2.0}'))
    await worker.is_working()
    posted.cancel()
    await worker.has_predicted(1)
    assert (await worker.post("/generate", b'{"n": 1}'))[0] == 200


@BOTH_FORMS
async def test_what_was_registered_for_a_cancel_is_called(platform: FakePlatform, launch: Launcher, form: str) -> None:
    worker = await launch(platform, "zoo:Zoo", SPROCKET_PROCESS=form)
    assert (await platform.run({"do": "register_and_end"})).status == "done"
    job = await platform.submit({"do": "wait_for_gate"})
    await platform.until(lambda: job.info.get("step") == "waiting")
    await cancelled(platform, job)
    assert (await platform.finished(job)).status == "canceled"
    await worker.says("undone first")
    assert f"[{job.request_id}] told to stop: True" in worker.stderr
    assert f"[{job.request_id}] what was registered with on_cancel failed" in worker.stderr
    assert "ZeroDivisionError" in worker.stderr
    assert "undone too late" not in worker.stdout


@pytest.mark.parametrize("wrong", ["0", "-1", "'long'", "True", "float('inf')"])
async def test_a_time_limit_that_is_none_is_refused(launch: Launcher, tmp_path: Path, wrong: str) -> None:
    code = f"import zoo, sprocket; zoo.Zoo.time_limit_seconds = {wrong}; sprocket.run(zoo.Zoo)"
    worker = await launch.start("-c", code)
    assert await worker.exit_code() == 2
    assert "Zoo.time_limit_seconds must be a number above 0" in worker.stderr
