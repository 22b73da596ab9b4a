"""A model of PyTorch in two ranks, which meet in gloo's collectives."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_process import Launcher, WorkerProcess, until_exists


@pytest.fixture
async def collective(launch: Launcher, platform: FakePlatform, torch_path: str) -> WorkerProcess:
    """Two ranks, ready; what PyTorch warns of is its own business."""
    worker = await launch.start(
        "collective.py",
        "--queue",
        "--port",
        "0",
        platform=platform,
        WORLD_SIZE="2",
        PYTHONPATH=torch_path,
        PYTHONWARNINGS="ignore",
        SPROCKET_RANK_TIMEOUT_SECONDS="1",
    )
    await worker.says("is ready", seconds=60)
    return worker


def pid_of(worker: WorkerProcess, rank: int) -> int:
    found = re.search(rf"rank {rank} of 2 is process (\d+)", worker.stdout)
    assert found
    return int(found[1])


async def test_ranks_meet_in_collectives_and_leave_none_behind_on_a_cancel(
    collective: WorkerProcess, platform: FakePlatform, tmp_path: Path
) -> None:
    assert (await platform.run({"numbers": [1, 2]})).outputs == {"total": 3.0}
    job = await platform.submit({"numbers": [1, 2], "steps": 10**9, "folder": str(tmp_path)})
    await platform.until(lambda: job.info.get("under_way"), seconds=30)

    job.cancel_requested = True

    assert (await platform.finished(job)).status == "canceled"
    left = [int((tmp_path / f"left-{rank}").read_text()) for rank in range(2)]
    assert left[0] == left[1] > 3
    assert (await platform.run({"numbers": [20, 22]})).outputs == {"total": 42.0}
    collective.send(signal.SIGTERM)
    assert await collective.exit_code() == 0


async def test_a_rank_that_dies_leaves_the_others_in_a_collective_and_their_stacks_tell(
    collective: WorkerProcess, platform: FakePlatform, tmp_path: Path
) -> None:
    job = await platform.submit({"numbers": [1, 2], "absent": 1, "folder": str(tmp_path)})
    for each in ("absent", "met-0"):
        await until_exists(tmp_path / each)

    os.kill(pid_of(collective, 1), signal.SIGKILL)

    job = await platform.finished(job, seconds=30)
    assert job.status == "failed"
    assert job.info["error"].startswith("rank 1 was killed by SIGKILL")
    assert set(job.info["stacks"]) == {"rank 0", "rank 1"}
    assert "sum_of" in job.info["stacks"]["rank 0"]
    assert await collective.exit_code() == 128 + signal.SIGKILL
