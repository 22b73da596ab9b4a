"""A trial: jobs that a worker works on without a platform, as `jig run` has it do. `runner` comes here.

Whoever wants one sets SPROCKET_TRIAL to a folder with `jobs.jsonl`: a line for each job, `{"payload", "files"}`, where
`files` has the local files that belong into the payload, by their keys. What comes of each job is a line in
`outcomes.jsonl`, written when it has ended; files that the outputs name lie in `files/`. Then the process ends.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import JobCanceledError, JobFailedError, WorkerEndedError
from .measures import INFO_KEY
from .model import Model
from .outcome import Failed, failure
from .testing.under_test import SubmittedJob, WorkerUnderTest

JOBS, OUTCOMES, FILES = "jobs.jsonl", "outcomes.jsonl", "files"

ENDED = ("done", "failed", "canceled")

LONGEST_JOB_SECONDS = 7 * 86_400.0
"""Whoever wants it shorter ends the process."""

OWN_CODE = str(Path(__file__).parent)


def run_trial(folder: Path, model: Model) -> int:
    """Work on the jobs in a folder; give the process's exit code."""
    _leave_own_lines_out()
    files = folder / FILES
    files.mkdir(exist_ok=True)
    worker = WorkerUnderTest(model, files)
    with (folder / OUTCOMES).open("w", encoding="utf-8") as outcomes:

        def write(outcome: Mapping[str, Any]) -> None:
            outcomes.write(json.dumps(outcome) + "\n")
            outcomes.flush()

        try:
            worker.start()
        except Exception as error:  # noqa: BLE001 - what setup raised is what the user wants to see
            write(_failed(failure(error), "setup"))
            return 1
        try:
            for job in [_submit(worker, line) for line in _lines(folder / JOBS)]:
                write(_outcome_of(job))
        except WorkerEndedError as error:
            return error.exit_code or 0
    try:
        worker.stop()
    except Exception as error:  # noqa: BLE001 - as above
        failed = failure(error)
        sys.stderr.write(f"shutdown() failed: {failed.traceback or failed.error}\n")
        return 1
    return 0


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _submit(worker: WorkerUnderTest, line: Mapping[str, Any]) -> SubmittedJob:
    files = {key: Path(path) for key, path in line["files"].items()}
    return worker.submit({**line["payload"], **files})


def _outcome_of(job: SubmittedJob) -> dict[str, Any]:
    started_at = time.monotonic()
    _show_info_of(job)
    seconds = round(time.monotonic() - started_at, 3)
    try:
        outputs = job.result()
    except JobFailedError as error:
        return {**_failed(Failed(error.args[0], error.traceback), "predict"), "request_id": job.id}
    except JobCanceledError as error:
        return {**_failed(Failed(str(error)), "predict"), "request_id": job.id}
    return {"status": "done", "request_id": job.id, "outputs": outputs, "seconds": seconds}


def _show_info_of(job: SubmittedJob) -> None:
    """Wait for the job's end, and meanwhile write what it emits to stderr."""
    shown: dict[str, Any] = {}

    def has_news(job: SubmittedJob) -> bool:
        return job.info != shown or job.status in ENDED

    while job.status not in ENDED:
        job.wait(has_news, timeout_seconds=LONGEST_JOB_SECONDS)
        news = {key: value for key, value in job.info.items() if shown.get(key) != value}
        shown.update(news)
        news.pop(INFO_KEY, None)
        if news and job.status != "failed":
            sys.stderr.write(f"info: {json.dumps(news)}\n")


def _failed(failed: Failed, stage: str) -> dict[str, Any]:
    return {"status": "failed", "stage": stage, "error": failed.error, "traceback": failed.traceback}


def _leave_own_lines_out() -> None:
    """Let the model's log lines pass, and none of ours: what they would say is in the outcomes."""

    def is_the_models(record: logging.LogRecord) -> bool:
        return not record.pathname.startswith(OWN_CODE)

    for handler in logging.getLogger().handlers:
        handler.addFilter(is_the_models)
