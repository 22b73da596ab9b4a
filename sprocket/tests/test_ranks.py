"""A model in two ranks, as processes; without PyTorch, with what it would find."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from sprocket_fake_platform import FakeJob, FakePlatform
from sprocket_process import Launcher, WorkerProcess, until_exists

RANKS = 2


async def team(launch: Launcher, platform: FakePlatform | None, **env: str) -> WorkerProcess:
    """A worker with two ranks, ready."""
    worker = await start(launch, platform, **env)
    await worker.ready()
    return worker


async def start(launch: Launcher, platform: FakePlatform | None, **env: str) -> WorkerProcess:
    return await launch(platform, "team:Team", **{"WORLD_SIZE": str(RANKS), **env})


def pids_of(worker: WorkerProcess) -> list[int]:
    """The ranks' processes, by rank."""
    found = dict(re.findall(r"rank (\d) of \d is process (\d+)", worker.stdout))
    return [int(found[str(rank)]) for rank in range(RANKS)]


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def gone(pids: list[int]) -> None:
    async with asyncio.timeout(60):
        while any(map(is_alive, pids)):
            await asyncio.sleep(0.02)


async def failed(platform: FakePlatform, worker: WorkerProcess, payload: dict[str, Any], code: int) -> FakeJob:
    """A job that fails, and ends the worker with all of its ranks."""
    pids = pids_of(worker)
    job = await platform.finished(await platform.submit(payload))
    assert job.status == "failed"
    assert job.attempt == 1
    assert await worker.exit_code() == code
    await gone(pids)
    return job


async def test_every_rank_finds_the_environment_of_torchrun(launch: Launcher, tmp_path: Path) -> None:
    worker = await team(launch, None, CUDA_VISIBLE_DEVICES="4,5")

    status, body = await worker.post("/generate", json.dumps({"do": "environment", "folder": str(tmp_path)}).encode())

    assert status == 200
    assert int(json.loads(body)["port"]) > 0
    for rank in "01":
        assert (tmp_path / rank).read_text() == (
            f"RANK={rank}\nLOCAL_RANK={rank}\nWORLD_SIZE=2\nLOCAL_WORLD_SIZE=2\nMASTER_ADDR=127.0.0.1\n"
            "CUDA_VISIBLE_DEVICES=4,5"
        )


async def test_ranks_meet_at_the_masters_address_and_rank_0s_result_is_the_jobs(
    launch: Launcher, platform: FakePlatform
) -> None:
    await team(launch, platform)

    for numbers in ([1, 2], [30, 12]):
        assert (await platform.run({"do": "meet", "numbers": numbers})).outputs == {"total": sum(numbers)}


async def test_what_another_rank_returns_is_not_looked_at(launch: Launcher, platform: FakePlatform) -> None:
    await team(launch, platform)

    job = await platform.run({"rank": 1, "do": "unserializable"})

    assert (job.status, job.outputs["rank"]) == ("done", 0)


async def test_what_rank_0_emits_is_the_jobs_info(launch: Launcher, platform: FakePlatform) -> None:
    await team(launch, platform)

    assert (await platform.run({"do": "news"})).info["told_by"] == 0
    assert "told_by" not in (await platform.run({"rank": 1, "do": "news"})).info


async def test_an_input_file_is_fetched_once_for_all(launch: Launcher, platform: FakePlatform, tmp_path: Path) -> None:
    platform.files["notes.txt"] = b"read by all"
    await team(launch, platform)

    address = f"{platform.base_url}/v1/storage/notes.txt"
    await platform.run({"do": "read", "folder": str(tmp_path), "file": address})

    first, second = ((tmp_path / rank).read_text() for rank in "01")
    assert first == second
    assert first.endswith("\nread by all")


async def test_a_file_of_rank_0_is_uploaded(launch: Launcher, platform: FakePlatform, tmp_path: Path) -> None:
    await team(launch, platform)

    job = await platform.run({"do": "write", "folder": str(tmp_path)})

    assert [content for name, content in platform.files.items() if name.startswith(job.request_id)] == [b"of rank 0"]


async def test_a_single_rank_is_one_too(launch: Launcher, platform: FakePlatform) -> None:
    worker = await team(launch, platform, WORLD_SIZE="1")

    assert (await platform.run({"do": "meet", "numbers": [5]})).outputs == {"total": 5}
    assert "rank 0 of 1" in worker.stdout


async def test_the_setting_says_another_number_than_the_platform(launch: Launcher) -> None:
    worker = await team(launch, None, WORLD_SIZE="1", SPROCKET_RANKS="3")

    assert len(re.findall(r"rank \d of 3", worker.stdout)) == 3


async def test_what_every_rank_raises_fails_the_job_alone(launch: Launcher, platform: FakePlatform) -> None:
    await team(launch, platform)

    job = await platform.run({"do": "raise_"})
    assert (job.status, job.info["error"]) == ("failed", "ValueError: rank 0 takes no such thing")
    assert "stacks" not in job.info

    job = await platform.run({"rank": 1, "do": "raise_"})
    assert (job.status, job.info["error"]) == ("failed", "rank 1: ValueError: rank 1 takes no such thing")

    assert (await platform.run({})).status == "done"


async def test_a_cancel_is_taken_up_at_the_same_step_in_all_ranks(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    await team(launch, platform)
    job = await platform.submit({"do": "until_cancelled", "folder": str(tmp_path)})
    await platform.until(lambda: job.info.get("under_way"))

    job.cancel_requested = True

    assert (await platform.finished(job)).status == "canceled"
    steps = [int((tmp_path / f"left-{rank}").read_text()) for rank in range(RANKS)]
    assert steps[0] == steps[1] > 2
    assert (await platform.run({})).status == "done"


async def test_a_cancel_that_only_rank_0_asks_for_is_taken_up(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    await team(launch, platform)
    job = await platform.submit({"rank": 0, "do": "until_cancelled", "folder": str(tmp_path)})
    await platform.until(lambda: job.info.get("under_way"))

    job.cancel_requested = True

    assert (await platform.finished(job)).status == "canceled"


async def test_a_cancel_ends_what_every_rank_waits_for(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    await team(launch, platform)
    job = await platform.submit({"do": "wait", "folder": str(tmp_path)})
    await platform.until(lambda: job.info.get("under_way"))

    job.cancel_requested = True

    assert (await platform.finished(job)).status == "canceled"
    assert all((tmp_path / f"left-{rank}").exists() for rank in range(RANKS))


async def test_health_answers_while_ranks_hang(launch: Launcher, tmp_path: Path) -> None:
    worker = await team(launch, None)
    asking = asyncio.ensure_future(
        worker.post("/generate", json.dumps({"do": "hang", "folder": str(tmp_path)}).encode())
    )
    await until_exists(tmp_path / "hangs-0", tmp_path / "hangs-1")

    assert (await worker.get("/health"))[0] == 200
    asking.cancel()


async def test_a_killed_rank_fails_the_job_and_ends_the_worker(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    worker = await team(launch, platform)
    job = await platform.submit({"do": "hang", "folder": str(tmp_path)})
    await until_exists(tmp_path / "hangs-0", tmp_path / "hangs-1")
    pids = pids_of(worker)

    os.kill(pids[1], signal.SIGKILL)

    job = await platform.finished(job)
    assert job.status == "failed"
    assert job.info["error"].startswith("rank 1 was killed by SIGKILL")
    assert "in hang" in job.info["stacks"]["rank 0"]
    assert job.info["stacks"]["rank 1"].startswith("was killed by SIGKILL")
    assert await worker.exit_code() == 128 + signal.SIGKILL
    await gone(pids)


async def test_a_crashed_rank_leaves_its_stack(launch: Launcher, platform: FakePlatform, tmp_path: Path) -> None:
    worker = await team(launch, platform)

    job = await failed(platform, worker, {"rank": 1, "do": "crash", "others": "hang", "folder": str(tmp_path)}, 139)

    assert job.info["error"] == "rank 1 was killed by SIGSEGV"
    assert "Segmentation fault" in job.info["stacks"]["rank 1"]
    assert "in crash" in job.info["stacks"]["rank 1"]
    assert "in hang" in job.info["stacks"]["rank 0"]


async def test_a_rank_that_leaves_fails_the_job(launch: Launcher, platform: FakePlatform) -> None:
    worker = await team(launch, platform)

    job = await failed(platform, worker, {"rank": 1, "do": "vanish"}, 3)

    assert job.info["error"] == "rank 1 exited with code 3"
    assert job.info["stacks"]["rank 1"] == "exited with code 3, without a stack"


async def test_a_rank_that_goes_on_after_rank_0_is_done_fails_the_job(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    worker = await team(launch, platform, SPROCKET_RANK_TIMEOUT_SECONDS="0.3")

    job = await failed(platform, worker, {"rank": 1, "do": "hang", "folder": str(tmp_path)}, 1)

    assert job.info["error"] == "rank 1 has not come to an end within 0.3 s after rank 0 was done"
    assert "in hang" in job.info["stacks"]["rank 1"]
    assert job.info["stacks"]["rank 0"] == "its predict has ended"
    assert "in hang" in worker.stderr


async def test_a_rank_that_waits_for_one_that_raised_fails_the_job(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    worker = await team(launch, platform, SPROCKET_RANK_TIMEOUT_SECONDS="0.3")

    job = await failed(platform, worker, {"rank": 0, "do": "hang", "others": "raise_", "folder": str(tmp_path)}, 1)

    assert job.info["error"] == (
        "rank 0 has not come to an end within 0.3 s after rank 1 failed (ValueError: rank 1 takes no such thing)"
    )
    assert "in hang" in job.info["stacks"]["rank 0"]
    assert "takes no such thing" in job.info["stacks"]["rank 1"]


async def test_ranks_that_take_up_no_cancel_show_where_they_are(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    worker = await team(launch, platform, SPROCKET_CANCEL_GRACE_SECONDS="0.2")
    job = await platform.submit({"do": "hang", "folder": str(tmp_path)})
    await until_exists(tmp_path / "hangs-0", tmp_path / "hangs-1")

    job.cancel_requested = True

    job = await platform.finished(job)
    assert job.status == "canceled"
    assert ["in hang" in job.info["stacks"][f"rank {rank}"] for rank in range(RANKS)] == [True, True]
    assert await worker.exit_code() == 75
    await gone(pids_of(worker))


async def test_ranks_that_overrun_their_time_show_where_they_are(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    worker = await launch(platform, "team:HurriedTeam", WORLD_SIZE="2", SPROCKET_CANCEL_GRACE_SECONDS="0.2")
    await worker.ready()

    job = await platform.run({"do": "hang", "folder": str(tmp_path)})

    assert job.status == "failed"
    assert job.info["error"] == "TimeLimitError: predict took longer than its time_limit_seconds, 0.5 s"
    assert set(job.info["stacks"]) == {"rank 0", "rank 1"}
    assert await worker.exit_code() == 75


async def test_a_job_that_comes_meanwhile_is_not_begun(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    worker = await team(launch, platform)
    first = await platform.submit({"rank": 1, "do": "vanish"})
    second = await platform.submit({})

    assert (await platform.finished(first)).status == "failed"
    assert await worker.exit_code() == 3
    assert second.status == "pending"


async def test_rank_0_may_take_its_time(launch: Launcher, platform: FakePlatform, tmp_path: Path) -> None:
    await team(launch, platform, SPROCKET_RANK_TIMEOUT_SECONDS="0.5")

    job = await platform.run({"rank": 0, "do": "linger", "seconds": 1.0})

    assert (job.status, job.outputs) == ("done", {"lingered": 1.0})


async def test_a_rank_that_is_lost_over_http_is_told_in_the_answer(launch: Launcher) -> None:
    worker = await team(launch, None)

    status, body = await worker.post("/generate", b'{"rank": 1, "do": "vanish"}')

    assert (status, json.loads(body)["error"]["message"]) == (500, "rank 1 exited with code 3")
    assert await worker.exit_code() == 3


async def test_a_rank_that_is_lost_between_jobs_ends_the_worker(launch: Launcher) -> None:
    worker = await team(launch, None)
    pids = pids_of(worker)

    os.kill(pids[0], signal.SIGKILL)

    assert await worker.exit_code() == 128 + signal.SIGKILL
    assert "rank 0 was killed by SIGKILL" in worker.stderr
    await gone(pids)


async def test_an_exit_in_one_rank_ends_the_worker_and_the_job_may_be_tried_again(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    worker = await team(launch, platform)
    pids = pids_of(worker)

    job = await platform.submit({"rank": 1, "do": "exit", "others": "hang", "folder": str(tmp_path)})

    assert await worker.exit_code() == 5
    assert job.status == "running", "the platform sees the worker go"
    await gone(pids)


@pytest.mark.parametrize(
    ("variable", "complaint"),
    [
        ("BREAK_SETUP_OF", "RuntimeError: no weights for rank 1"),
        ("KILL_IN_SETUP", "rank 1 exited with code 9"),
    ],
)
async def test_a_setup_that_goes_wrong_in_one_rank_ends_all(launch: Launcher, variable: str, complaint: str) -> None:
    worker = await start(launch, None, **{variable: "1"})

    assert await worker.exit_code() == (1 if variable == "BREAK_SETUP_OF" else 9)
    assert complaint in worker.stderr
    assert "rank 1" in worker.stderr
    await gone([int(pid) for pid in re.findall(r"is process (\d+)", worker.stdout)])


async def test_a_drain_lets_the_job_end_and_shuts_all_ranks_down(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    worker = await team(launch, platform)
    pids = pids_of(worker)
    job = await platform.submit({"do": "linger", "seconds": 0.5})
    await platform.until(lambda: job.status != "pending")

    worker.send(signal.SIGTERM)

    assert (await platform.finished(job)).status == "done"
    assert await worker.exit_code() == 0
    assert [f"rank {rank} is shut down" in worker.stdout for rank in range(RANKS)] == [True, True]
    await gone(pids)


async def test_no_rank_outlives_a_killed_worker(launch: Launcher, tmp_path: Path) -> None:
    worker = await team(launch, None)
    asking = asyncio.ensure_future(
        worker.post("/generate", json.dumps({"do": "hang", "folder": str(tmp_path)}).encode())
    )
    await until_exists(tmp_path / "hangs-0", tmp_path / "hangs-1")

    worker.send(signal.SIGKILL)

    await gone(pids_of(worker))
    asking.cancel()


async def test_nothing_is_left_in_the_temporary_directory(launch: Launcher) -> None:
    worker = await team(launch, None)
    assert list(launch.temporary.glob("sprocket-jobs-*"))

    worker.send(signal.SIGTERM)

    assert await worker.exit_code() == 0
    assert not list(launch.temporary.glob("sprocket-jobs-*"))


async def test_what_a_killed_worker_leaves_is_removed_by_the_next(launch: Launcher) -> None:
    worker = await team(launch, None)
    (left,) = launch.temporary.glob("sprocket-jobs-*")
    worker.process.kill()
    await worker.exit_code()
    assert left.exists()

    await team(launch, None)

    async with asyncio.timeout(60):
        while left.exists():
            await asyncio.sleep(0.01)


async def test_a_script_may_say_it_to_run(launch: Launcher) -> None:
    worker = await launch.start("team.py", "--port", "0", WORLD_SIZE="2")
    await worker.ready()

    assert len(re.findall(r"rank \d of 2", worker.stdout)) == 2


async def test_warming_up_happens_in_every_rank(launch: Launcher) -> None:
    worker = await launch(None, "team:WarmTeam", WORLD_SIZE="2", RUN_AND_EXIT="2")

    assert await worker.exit_code() == 0
    assert worker.stdout.count("rank 0 warms up") == 2
    assert worker.stdout.count("rank 1 warms up") == 2


@pytest.mark.parametrize(
    ("target", "env", "complaint"),
    [
        ("team:Team", {"LOCAL_RANK": "0"}, "this worker was started by torchrun (LOCAL_RANK is set)"),
        ("team:Team", {"WORLD_SIZE": "0"}, "WORLD_SIZE must be the number of ranks, from 1 to 64, not '0'"),
        ("team:Team", {"SPROCKET_RANKS": "two"}, "SPROCKET_RANKS must be the number of ranks, from 1 to 64, not 'two'"),
        ("team:Crowded", {}, "Crowded.concurrency must be 1: with use_torchrun, ranks work on one job at a time"),
        ("team:Awaiting", {}, "Awaiting.predict must be a plain def: with use_torchrun, ranks work in step"),
        ("team:Vague", {}, "Vague.use_torchrun must be True or False (a process per GPU), not 2"),
    ],
)
async def test_mistakes_are_told_in_one_line(
    launch: Launcher, target: str, env: dict[str, str], complaint: str
) -> None:
    worker = await launch(None, target, **env)

    assert await worker.exit_code() == 2
    assert f"sprocket: {complaint}" in worker.stderr
