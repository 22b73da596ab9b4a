"""Warm-up inputs go through predict before the worker is ready; RUN_AND_EXIT does nothing else."""

from __future__ import annotations

import json

import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_process import Launcher


async def test_inputs_go_through_predict_before_the_worker_is_ready(launch: Launcher) -> None:
    worker = await launch(None, "warm:Warm")
    await worker.ready()

    assert "size 2" in worker.stderr.partition("is ready")[0]
    assert "INFO [warm-up] size 1" in worker.stderr
    assert json.loads((await worker.post("/generate", b'{"size": 3}'))[1]) == {"seen": [1, 2, 3]}


async def test_a_property_may_give_what_setup_has_made(launch: Launcher) -> None:
    worker = await launch(None, "warm:AsyncWarm")
    await worker.ready()

    assert json.loads((await worker.post("/generate", b'{"word": "c"}'))[1]) == {"seen": ["a", "b", "c"]}


async def test_warming_up_counts_as_setup_and_not_as_jobs(launch: Launcher, platform: FakePlatform) -> None:
    worker = await launch(platform, "warm:Warm")
    await worker.ready()

    assert "sprocket_predict_seconds_count 0.0" in (await worker.get("/metrics"))[1]
    assert platform.updates == []
    assert (await platform.run({"size": 3})).outputs == {"seen": [1, 2, 3]}


async def test_an_input_that_fails_ends_the_worker(launch: Launcher) -> None:
    worker = await launch(None, "warm:Choking")

    assert await worker.exit_code() == 1
    assert "predict failed for {'fine': False}" in worker.stderr
    assert "ValueError: this one is not fine" in worker.stderr
    assert "is ready" not in worker.stderr


async def test_run_and_exit_runs_all_inputs_so_many_times(launch: Launcher) -> None:
    worker = await launch(None, "warm:Warm", "--queue", RUN_AND_EXIT="3")

    assert await worker.exit_code() == 0
    assert "saw [1, 2, 1, 2, 1, 2]" in worker.stdout
    assert "is ready" not in worker.stderr


async def test_run_and_exit_binds_no_port_that_was_asked_for(launch: Launcher) -> None:
    serving = await launch(None, "warm:Warm")

    worker = await launch(None, "warm:Warm", RUN_AND_EXIT="1", PORT=str(await serving.port()))

    assert await worker.exit_code() == 0


@pytest.mark.parametrize(
    ("target", "code", "complaint"),
    [
        ("warm:Choking", 1, "ValueError: this one is not fine"),
        ("warm:Leaving", 7, "SystemExit: 7"),
        ("warm:Cold", 1, "RUN_AND_EXIT runs the warm-up inputs, and Cold.warmup_inputs has none"),
        ("warm:Wrong", 1, "Wrong.warmup_inputs must be a list of dicts"),
    ],
)
async def test_run_and_exit_fails_with_its_inputs(launch: Launcher, target: str, code: int, complaint: str) -> None:
    worker = await launch(None, target, RUN_AND_EXIT="1")

    assert await worker.exit_code() == code
    assert complaint in worker.stderr
    assert ("Traceback" in worker.stderr) == (target in ("warm:Choking", "warm:Leaving"))
    assert "engine.py" not in worker.stderr  # sprocket's own frames tell nobody anything


async def test_run_and_exit_that_is_no_number_is_told(launch: Launcher) -> None:
    worker = await launch(None, "warm:Warm", RUN_AND_EXIT="twice")

    assert await worker.exit_code() == 2
    assert "RUN_AND_EXIT must be how often to run the warm-up inputs, a whole number, not 'twice'" in worker.stderr
