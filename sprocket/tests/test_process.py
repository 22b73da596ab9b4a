"""The model in a process of its own: it can hold Python's global lock, crash or be killed, and the worker answers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_process import WAIT_SECONDS, Launcher, WorkerProcess

PROCESS = {"SPROCKET_PROCESS": "1"}


async def gone(pid: int) -> None:
    """Wait until there is no such process, or only what nobody has reaped yet."""
    until = time.monotonic() + WAIT_SECONDS
    while _state_of(pid) not in ("", "Z"):
        assert time.monotonic() < until, f"process {pid} is still there"
        await asyncio.sleep(0.01)


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def model_pid(platform: FakePlatform) -> int:
    outputs = (await platform.run({"do": "pids"})).outputs
    return int(outputs["model"])


@pytest.mark.parametrize("target", ["zoo:Zoo", "zoo:AsyncZoo", "zoo:instance", "zoo:Apart"])
async def test_jobs_are_worked_off_in_another_process(platform: FakePlatform, launch: Launcher, target: str) -> None:
    worker = await launch(platform, target, **({} if target == "zoo:Apart" else PROCESS))
    for n in range(5):
        assert (await platform.run({"n": n, "text": "ü" * 1000})).outputs == {"n": n, "text": "ü" * 1000}
    if target != "zoo:AsyncZoo":
        pids = (await platform.run({"do": "pids"})).outputs
        assert pids["model"] != pids["worker"] == worker.process.pid
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert "shutdown" in worker.stdout


async def test_the_environment_can_call_for_a_thread(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Apart", SPROCKET_PROCESS="0")
    assert await model_pid(platform) == worker.process.pid


async def test_a_script_is_run_anew_in_the_process(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch.start("script.py", "--queue", "--port", "0", "--own-flag", platform=platform, **PROCESS)
    await worker.ready()
    assert (await platform.run({"a": 1})).outputs == {"doubled": 2}
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0


async def test_the_worker_answers_while_predict_holds_the_global_lock(
    platform: FakePlatform, launch: Launcher, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    worker = await launch(platform, "zoo:Zoo", **PROCESS)
    job = await platform.submit({"do": "hold_the_lock", "until": str(tmp_path / "pipe")})
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    await platform.until(lambda: job.info.get("step") == "holding")
    for _ in range(10):
        assert await worker.get("/health") == (200, '{"status": "healthy"}')
        assert "requests_inflight 1.0" in (await worker.get("/metrics"))[1]
    beats = len(platform.updates_of(job, "running"))
    await platform.until(lambda: len(platform.updates_of(job, "running")) >= beats + 3)
    job.cancel_requested = True
    await platform.until(lambda: len(platform.updates_of(job, "running")) >= beats + 4)
    assert job.status == "running"
    os.write(pipe, b".")
    assert (await platform.finished(job)).outputs == {"held": True}
    os.close(pipe)


async def test_cancels_news_and_log_lines_cross_over(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo", **PROCESS)
    job = await platform.run({"do": "news"})
    assert job.info.items() >= {"a": 1, "thread": True, "step": "two", "last": "words"}.items()
    await worker.says(f"[{job.request_id}] half way")
    job = await platform.submit({"do": "until_cancelled"})
    await platform.until(lambda: job.info.get("step") == "waiting")
    job.cancel_requested = True
    assert (await platform.finished(job)).status == "canceled"


async def test_a_cancel_reaches_coroutines(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:AsyncZoo", **PROCESS)
    job = await platform.submit({"do": "wait"})
    await platform.until(lambda: job.status == "running")
    job.cancel_requested = True
    assert (await platform.finished(job)).status == "canceled"
    await worker.says("cancelled in await")


@pytest.mark.parametrize("target", ["crowd:Quartet", "crowd:AsyncQuartet"])
async def test_several_jobs_run_at_a_time(platform: FakePlatform, launch: Launcher, target: str) -> None:
    await launch(platform, target, **PROCESS)
    jobs = await platform.submit_many([{"do": "meet", "n": n} for n in range(8)])
    assert [(await platform.finished(job)).outputs for job in jobs] == [job.payload for job in jobs]


async def test_files_and_requests_cross_over(platform: FakePlatform, launch: Launcher, tmp_path: Path) -> None:
    platform.files["in.txt"] = b"content"
    await launch(platform, "zoo:Zoo", **PROCESS)
    job = await platform.run({"do": "read", "file": f"{platform.base_url}/v1/storage/in.txt"})
    assert job.outputs == {"name": "in.txt", "content": "content", "is_temporary": True}
    job = await platform.run({"do": "write", "path": str(tmp_path / "out.txt"), "content": "x"})
    assert platform.files[f"{job.request_id}-out.txt"] == b"x"


async def test_a_request_over_http_reaches_the_model_whole(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Requests", **PROCESS)
    await worker.ready()
    status, body = await worker.post("/generate", b'{"a": 1}', {"X-Colour": "red", "X-Request-ID": "mine"})
    assert (status, json.loads(body)) == (
        200,
        {"input": {"a": 1}, "id": "mine", "priority": 0, "info": {}, "header": "red"},
    )


@pytest.mark.parametrize(
    ("payload", "code", "said"),
    [
        ({"do": "exit", "code": 3}, 3, "predict ended the process with exit code 3"),
        ({"do": "exit", "code": 0}, 0, "predict ended the process with exit code 0"),
        ({"do": "vanish", "code": 4}, 4, "the model's process exited with code 4"),
        ({"do": "dereference_null"}, 139, "the model's process was killed by SIGSEGV"),
        ({"do": "dereference_null"}, 139, "in dereference_null"),
        ({"do": "close_everything"}, 1, "cannot reach its worker"),
    ],
)
async def test_a_process_that_ends_takes_the_worker_with_it_and_reports_nothing(
    platform: FakePlatform, launch: Launcher, payload: dict[str, object], code: int, said: str
) -> None:
    worker = await launch(platform, "zoo:Zoo", **PROCESS)
    job = await platform.submit(payload)
    assert await worker.exit_code() == code
    assert said in worker.stderr
    assert (job.status, platform.updates_of(job)) == ("running", [])


async def test_a_process_that_is_killed_while_it_waits_is_missed_at_once(
    platform: FakePlatform, launch: Launcher
) -> None:
    worker = await launch(platform, "zoo:Zoo", **PROCESS)
    os.kill(await model_pid(platform), signal.SIGKILL)
    assert await worker.exit_code() == 137
    assert "was killed by SIGKILL" in worker.stderr


async def test_jobs_that_the_process_does_not_have_are_handed_back(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo", **PROCESS)
    await worker.ready()
    posted = asyncio.create_task(worker.post("/generate", b'{"do": "sleep", "seconds": 60}'))
    await worker.is_working()
    job = await platform.submit({"do": "pids"})
    await worker.is_working(2)
    os.kill(child_of(worker), signal.SIGKILL)
    assert (await posted)[0] == 500
    assert await worker.exit_code() == 137
    assert job.status == "pending"


async def test_what_the_model_left_behind_ends_with_the_worker(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo", **PROCESS)
    left = (await platform.run({"do": "leave_a_child"})).outputs["child"]
    assert _state_of(left) not in ("", "Z")
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    await gone(left)


async def test_nothing_outlives_a_worker_that_is_killed(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo", **PROCESS)
    job = await platform.submit({"do": "leave_a_child", "then": "hold_the_lock"})
    await platform.until(lambda: "child" in job.info)
    worker.send(signal.SIGKILL)
    await gone(job.info["model"])
    await gone(job.info["child"])


async def test_a_stop_that_everybody_is_told_of_lets_the_job_finish(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo", **PROCESS)
    model = await model_pid(platform)
    job = await platform.submit({"do": "sleep", "seconds": 0.5})
    await platform.until(lambda: platform.updates_of(job, "running"))
    os.kill(model, signal.SIGTERM)
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert job.status == "done"


async def test_sigterm_in_setup_ends_both(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:SlowSetup", **PROCESS)
    await worker.says("setting up slowly")
    model = child_of(worker)
    assert await worker.get("/health") == (503, '{"status": "starting"}')
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    await gone(model)


async def test_a_broken_setup_is_shown_with_its_traceback(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:BrokenSetup", **PROCESS)
    assert await worker.exit_code() == 1
    assert 'raise RuntimeError("no weights' in worker.stderr
    assert platform.polls == []


async def test_a_setup_that_is_killed_is_told_of(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:SlowSetup", **PROCESS)
    await worker.says("setting up slowly")
    os.kill(child_of(worker), signal.SIGKILL)
    assert await worker.exit_code() == 137
    assert "the model's process was killed by SIGKILL" in worker.stderr


async def test_a_job_that_outlasts_the_grace_period_is_released(platform: FakePlatform, launch: Launcher) -> None:
    worker = await launch(platform, "zoo:Zoo", TERMINATION_GRACE_PERIOD_SECONDS="1", **PROCESS)
    model = await model_pid(platform)
    job = await platform.submit({"do": "sleep", "seconds": 60})
    await platform.until(lambda: platform.updates_of(job, "running"))
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert job.status == "pending"
    await gone(model)


async def test_a_choice_that_is_none_is_refused(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Zoo", SPROCKET_PROCESS="yes")
    assert await worker.exit_code() == 2
    assert "SPROCKET_PROCESS must be 1 or 0, not 'yes'" in worker.stderr


def child_of(worker: WorkerProcess) -> int:
    """Find the model's process: the worker's child that is no warden."""
    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    (model,) = (pid for pid in children if b"warden.py" not in Path(f"/proc/{pid}/cmdline").read_bytes())
    return int(model)
