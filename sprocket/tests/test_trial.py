"""A trial: jobs from a folder, outcomes into it, and no platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sprocket_process import Launcher


async def tried(
    launch: Launcher, folder: Path, target: str, *payloads: dict[str, Any], code: int = 0
) -> list[dict[str, Any]]:
    """Have a worker work on the jobs of a folder; give their outcomes."""
    write(folder, payloads)
    worker = await launch(None, target, "--queue", SPROCKET_TRIAL=str(folder))
    assert await worker.exit_code() == code, worker.stderr
    return outcomes_in(folder)


def write(folder: Path, payloads: tuple[dict[str, Any], ...]) -> None:
    folder.mkdir()
    lines = [json.dumps({"files": {}, "payload": {}, **payload}) for payload in payloads]
    (folder / "jobs.jsonl").write_text("".join(f"{line}\n" for line in lines))


def outcomes_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "outcomes.jsonl").read_text().splitlines()]


async def test_each_job_gets_its_outcome_in_order(launch: Launcher, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("hello")
    done, failed, kept = await tried(
        launch,
        tmp_path / "trial",
        "zoo:Zoo",
        {"payload": {"do": "read"}, "files": {"file": str(page)}},
        {"payload": {"do": "raise_"}},
        {"payload": {"do": "write", "path": str(tmp_path / "out.txt"), "content": "x"}},
    )
    assert (done["status"], done["outputs"]["content"]) == ("done", "hello")
    assert (failed["status"], failed["stage"], failed["error"]) == ("failed", "predict", "ValueError: no such xxxx")
    assert "in raise_" in failed["traceback"]
    assert kept["outputs"]["file"] == str(tmp_path / "trial" / "files" / f"{kept['request_id']}-out.txt")


async def test_what_setup_raised_is_the_outcome(launch: Launcher, tmp_path: Path) -> None:
    (outcome,) = await tried(launch, tmp_path / "trial", "zoo:BrokenSetup", {"payload": {}}, code=1)
    assert (outcome["stage"], outcome["error"]) == ("setup", "RuntimeError: no weights at /models")
    assert "src/sprocket" not in outcome["traceback"]


@pytest.mark.parametrize("do", ["exit", "vanish"])
async def test_an_exit_in_predict_leaves_no_outcome(launch: Launcher, tmp_path: Path, do: str) -> None:
    assert await tried(launch, tmp_path / "trial", "zoo:Zoo", {"payload": {"do": do, "code": 3}}, code=3) == []


async def test_a_model_of_several_ranks_is_tried_in_one(launch: Launcher, tmp_path: Path) -> None:
    (outcome,) = await tried(launch, tmp_path / "trial", "team:Team", {"payload": {"do": "meet", "numbers": [5]}})
    assert outcome["outputs"] == {"total": 5}
