"""Models and surroundings that misbehave, with the model in a thread and in a process: one job suffers, no other."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_process import Launcher

pytestmark = pytest.mark.parametrize("form", ["0", "1"], ids=["thread", "process"])


@pytest.mark.parametrize(
    ("do", "error"),
    [
        ("raise_", "ValueError: no such xxxx"),
        ("none", "predict returned None"),
        ("text", "predict returned str"),
        ("nan", "JSON has no NaN"),
        ("object", "outputs['thing']['deep'][0] is object"),
        ("huge", "bytes of JSON, more than 67108864; return large values as files"),
        ("fill_memory", "MemoryError"),
    ],
)
async def test_a_job_that_the_model_fails_says_why(
    platform: FakePlatform, launch: Launcher, form: str, do: str, error: str
) -> None:
    await launch(platform, "zoo:Zoo", SPROCKET_PROCESS=form)
    job = await platform.run({"do": do})
    assert (job.status, job.attempt) == ("failed", 1)
    assert error in job.info["error"]
    assert (await platform.run({"n": 1})).outputs == {"n": 1}


async def test_closed_outputs_cost_nothing_but_the_lines(platform: FakePlatform, launch: Launcher, form: str) -> None:
    worker = await launch(platform, "zoo:Zoo", SPROCKET_PROCESS=form)
    assert (await platform.run({"do": "close_outputs"})).outputs == {"closed": True}
    for _ in range(3):
        assert (await platform.run({"do": "news"})).info["last"] == "words"
        assert (await worker.get("/health"))[0] == 200


async def test_what_took_the_place_of_closed_outputs_is_sent_no_lines(
    platform: FakePlatform, launch: Launcher, form: str
) -> None:
    worker = await launch(platform, "zoo:Zoo", SPROCKET_PROCESS=form)
    assert (await platform.run({"do": "close_outputs"})).outputs == {"closed": True}
    callers = [await asyncio.open_connection("127.0.0.1", await worker.port()) for _ in range(3)]
    for reader, writer in callers * 2:  # the worker has them open by now, under the numbers that were free
        await platform.run({"n": 1})
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    for _, writer in callers:
        writer.close()


async def test_a_setup_that_takes_long_is_no_failure(
    platform: FakePlatform, launch: Launcher, form: str, tmp_path: Path
) -> None:
    worker = await launch(platform, "zoo:GatedSetup", SPROCKET_PROCESS=form, GATE=str(tmp_path / "gate"))
    job = await platform.submit({"n": 1})
    await worker.port()
    for _ in range(3):
        assert await worker.get("/health") == (503, '{"status": "starting"}')
    assert (platform.polls, job.status) == ([], "pending")
    (tmp_path / "gate").touch()
    assert (await platform.finished(job)).outputs == {"n": 1}
    assert (await worker.get("/health"))[0] == 200


async def test_a_platform_that_is_away_at_times_gets_the_result_in_the_end(
    platform: FakePlatform, launch: Launcher, form: str, tmp_path: Path
) -> None:
    await platform.stop()
    worker = await launch(platform, "zoo:Zoo", SPROCKET_PROCESS=form)
    await worker.says("no job could be claimed, trying on")
    await platform.start()
    job = await platform.submit({"do": "until_there", "path": str(tmp_path / "gate")})
    await platform.until(lambda: platform.updates_of(job, "running"))
    await platform.stop()
    await worker.says("heartbeat failed, trying on")
    await platform.start()
    beats = len(platform.updates_of(job, "running"))
    await platform.until(lambda: len(platform.updates_of(job, "running")) > beats)
    await platform.stop()
    (tmp_path / "gate").touch()
    await worker.says("result not delivered yet")
    await platform.start()
    assert (await platform.finished(job)).outputs == {"there": True}
    assert (job.status, job.attempt) == ("done", 1)


async def test_a_clock_that_jumps_changes_nothing(platform: FakePlatform, launch: Launcher, form: str) -> None:
    await launch(platform, "jumpy:Jumpy", SPROCKET_PROCESS=form)
    job = await platform.run({"seconds": 1.5})
    assert job.status == "done", job.info
    ages = [update.body["progress_age_seconds"] for update in platform.updates_of(job, "running")]
    assert ages
    assert ages == sorted(ages)
    assert 0 <= ages[0] <= ages[-1] < 60


async def test_a_second_sigterm_in_predict_hands_the_job_back_at_once(
    platform: FakePlatform, launch: Launcher, form: str
) -> None:
    worker = await launch(platform, "zoo:Zoo", SPROCKET_PROCESS=form)
    job = await platform.submit({"do": "sleep", "seconds": 60})
    await platform.until(lambda: platform.updates_of(job, "running"))
    worker.send(signal.SIGTERM)
    await worker.says("SIGTERM received")
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert job.status == "pending"
