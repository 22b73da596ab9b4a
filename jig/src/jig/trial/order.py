"""The folder through which jig and a worker speak in a trial: jobs go in, outcomes and files come out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jig.payload import files_of, unescaped

JOBS, OUTCOMES, FILES = "jobs.jsonl", "outcomes.jsonl", "files"


def job_line(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A job as the worker reads it: the payload, and apart from it its files.

    Raises:
        UsageError: one of them does not exist.
    """
    files = files_of(payload)
    plain = {key: unescaped(value) for key, value in payload.items() if key not in files}
    return {"payload": plain, "files": {key: str(path.resolve()) for key, path in files.items()}}


def write_jobs(folder: Path, payloads: Iterable[Mapping[str, Any]]) -> None:
    """Write the jobs down."""
    with (folder / JOBS).open("w", encoding="utf-8") as file:
        for payload in payloads:
            file.write(json.dumps(job_line(payload)) + "\n")


def read_outcomes(folder: Path) -> Iterator[dict[str, Any]]:
    """What has come of the jobs, in their order; of those that have not ended nothing."""
    path = folder / OUTCOMES
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):  # else the worker was killed in the middle of it
                yield json.loads(line)


def keep_files(outputs: Any, folder: Path, outcome: Mapping[str, Any], kept: Path, found: dict[str, str]) -> Any:
    """The outputs with their files moved to where they stay.

    Args:
        outputs: what predict returned, or a part of it.
        folder: of the trial.
        outcome: whose outputs they are.
        kept: the folder where files stay; made with the first one.
        found: gets the path of each file, by where it was.
    """
    if isinstance(outputs, dict):
        return {key: keep_files(value, folder, outcome, kept, found) for key, value in outputs.items()}
    if isinstance(outputs, list):
        return [keep_files(value, folder, outcome, kept, found) for value in outputs]
    if not isinstance(outputs, str) or not outputs.startswith(f"{folder / FILES}/"):
        return outputs
    if outputs in found:
        return found[outputs]
    kept.mkdir(parents=True, exist_ok=True)
    name = Path(outputs).name.removeprefix(f"{outcome['request_id']}-")
    path = free_path(kept.resolve() / name)
    shutil.move(outputs, path)
    found[outputs] = str(path)
    return found[outputs]


def free_path(path: Path) -> Path:
    """The path, with a number where something is there already."""
    number, free = 2, path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free
