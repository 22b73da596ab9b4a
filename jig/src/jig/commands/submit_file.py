"""`jig submit --file`: all the jobs of a file, watched until they have ended."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jig.client import Client
from jig.errors import IncompleteError, JigError, PlatformError, WatchInterruptedError
from jig.job import state_line
from jig.output import Output
from jig.payload import with_uploads
from jig.run.collector import Collector
from jig.run.job_file import STANDARD_INPUT, JobFile, opened
from jig.run.jobs import RunJobs
from jig.run.portions import Item, item_of, portions
from jig.run.report import Progress, Rate, broken_off_text, summary_document, summary_text
from jig.run.results import STANDARD_OUTPUT, Results
from jig.run.run import Run
from jig.run.submitter import Submitter
from jig.run.view import RunView
from jig.storage import upload_file
from jig.units import count
from jig.watch import Reasons, status_of

LOOK_SECONDS = 5.0  # without a job that ends, it is asked what the first one waits for
LONGEST_SLEEP_SECONDS = 0.5
NEW_RUN_ID_BYTES = 5


@dataclass(frozen=True)
class FileRun:
    """What `--file` asks for.

    Args:
        path: of the file, or `-`.
        name: the deployment.
        fields: of the jobs, where a line does not set them.
        is_watched: wait until all have ended.
        run_id: of an earlier run that this one goes on with, or a new one.
        is_again: there may have been an earlier one.
        output: where results go; None for nowhere.
        force: overwrite what is there.
    """

    path: str
    name: str
    fields: Mapping[str, Any]
    is_watched: bool
    run_id: str
    is_again: bool
    output: str | None
    force: bool


def new_run_id() -> str:
    """One that no other run has."""
    return secrets.token_hex(NEW_RUN_ID_BYTES)


def submit_file(client: Client, output: Output, asked: FileRun) -> None:
    """Submit the jobs of a file, and see how they end.

    Raises:
        UsageError: a line is no job; nothing was submitted.
        IncompleteError: not every job was submitted, or has a result.
        WatchInterruptedError: Ctrl-C; what was submitted goes on.
    """
    with opened(asked.path) as file, contextlib.ExitStack() as stack:
        jobs = RunJobs(file.check())
        results = None if asked.output is None else stack.enter_context(Results(asked.output, force=asked.force))
        collector = Collector(client, asked.name, jobs, results) if asked.is_watched else None
        submitter = Submitter(client, jobs, portions(items(client, file, asked), time.monotonic), file.name)
        run = Run(jobs, submitter, collector)
        output.note(f"Submitting {count(jobs.total, 'job')} of {file.name} to {asked.name}, run {asked.run_id}")
        seconds = carried_out(run, client, output, asked, jobs, results)
    if asked.is_watched:
        report(run, output, asked, file.name, seconds)
    else:
        report_submitted(jobs, output, asked)


def items(client: Client, file: JobFile, asked: FileRun) -> Iterator[Item]:
    """The file's jobs as they go out; the files that they name are uploaded on the way, each once."""
    urls: dict[Path, str] = {}

    def upload(path: Path) -> str:
        if path not in urls:
            urls[path] = upload_file(client, path, lambda count_bytes: None)  # noqa: ARG005
        return urls[path]

    defaults = {"model": asked.name, **asked.fields}
    for job in file.jobs():
        payload = with_uploads(job.fields["payload"], upload)
        yield item_of(job, payload, defaults=defaults, run_id=asked.run_id)


def carried_out(
    run: Run, client: Client, output: Output, asked: FileRun, jobs: RunJobs, results: Results | None
) -> float:
    """Take the run to its end under a progress bar; return the seconds that it took."""
    started_at = time.monotonic()
    view = RunView(output, jobs.total)
    stall = Stall(client, output, asked.name)
    rate = Rate()
    try:
        with view.shown():
            while not run.is_over:
                pause_seconds = run.step(time.monotonic())
                seconds = time.monotonic() - started_at
                note = run.trouble or stall.note(run, seconds)
                lately = rate.per_second(seconds, run.completed)
                view.update(Progress(run.counts, asked.is_watched, lately, note), seconds)
                time.sleep(min(pause_seconds, LONGEST_SLEEP_SECONDS))
        seconds = time.monotonic() - started_at
        if results is not None:
            results.finish()
    except KeyboardInterrupt as error:
        text = broken_off_text(run.counts, run.submitter.in_flight, is_watched=asked.is_watched)
        raise WatchInterruptedError(f"Interrupted: {text}", hint=way_on(jobs, asked)) from error
    except JigError as error:
        raise broken_off(error, run, asked, jobs) from error
    return seconds


class Stall:
    """Tells why no job ends, where none has for a while: what the first one waits for, or does.

    Args:
        client: the platform.
        output: with `--json` nothing is asked.
        name: the deployment.
    """

    def __init__(self, client: Client, output: Output, name: str) -> None:
        self._client = client
        self._is_quiet = output.json
        self._name = name
        self._reasons = Reasons(client, output, name)
        self._ended = 0
        self._due_at = LOOK_SECONDS
        self._note = ""

    def note(self, run: Run, seconds: float) -> str:
        """Why, so many seconds after the start; empty where jobs end."""
        if run.counts.ended != self._ended:
            self._ended, self._due_at, self._note = run.counts.ended, seconds + LOOK_SECONDS, ""
        if self._is_quiet or run.collector is None or seconds < self._due_at:
            return self._note
        self._due_at = seconds + LOOK_SECONDS
        request_id = run.collector.first_open()
        if request_id is not None:
            with contextlib.suppress(PlatformError):
                job = status_of(self._client, self._name, request_id)
                self._note = self._reasons.why(job, seconds) or f"job {request_id} is {state_line(job)}"
        return self._note


def broken_off(error: JigError, run: Run, asked: FileRun, jobs: RunJobs) -> JigError:
    """The error, and with it how far the run has come and how to go on; as it is where nothing was submitted."""
    if not jobs.ids and not run.submitter.in_flight:
        return error
    text = broken_off_text(run.counts, run.submitter.in_flight, is_watched=asked.is_watched)
    hint = "\n".join(part for part in (error.hint, text, way_on(jobs, asked)) if part)
    document = summary_document(run.counts, None, [], asked.run_id)
    return IncompleteError(error.message, hint=hint, details={"run": document})


def way_on(jobs: RunJobs, asked: FileRun) -> str:
    """How to go on with a run that is interrupted, and how to cancel it."""
    again = "the same command again" if asked.is_again else f"the same command with --run-id {asked.run_id}"
    given = " and the same input" if asked.path == STANDARD_INPUT else ""
    lines = [f"To go on: {again}{given}. No job is submitted twice."]
    open_ids = [jobs.ids[at] for at in jobs.open_from(0, len(jobs.ids))]
    if open_ids and (path := kept_ids(open_ids, asked.run_id)):
        lines.append(f"To cancel what has not ended: xargs jig jobs cancel --name {asked.name} < {path}")
    return "\n".join(lines)


def kept_ids(request_ids: list[str], run_id: str) -> str | None:
    """A file that holds the IDs, one a line; None where there is no place for it."""
    name = "".join(letter if letter.isalnum() else "-" for letter in run_id)
    try:
        with tempfile.NamedTemporaryFile("w", prefix=f"jig-{name}-", suffix=".ids", delete=False) as file:
            file.writelines(f"{request_id}\n" for request_id in request_ids)
            return file.name
    except OSError:
        return None


def report(run: Run, output: Output, asked: FileRun, file_name: str, seconds: float) -> None:
    """Say how a run has ended.

    Raises:
        IncompleteError: a job has no result.
    """
    counts = run.counts
    errors = run.collector.errors if run.collector else []
    document = summary_document(counts, seconds, errors, asked.run_id)
    text = summary_text(counts, seconds, errors, file_name, asked.name)
    if asked.is_again:
        output.note(f"{count(counts.repeated, 'job')} had been submitted before.")
    missing = counts.ended - counts.done
    failure = f"{missing:,} of {count(counts.ended, 'job')} ended without a result."
    if missing and output.json:
        raise IncompleteError(failure, details={"run": document})
    if asked.output == STANDARD_OUTPUT:
        output.note(text)
    else:
        output.result(document, text)
    if missing:
        raise IncompleteError(failure)


def report_submitted(jobs: RunJobs, output: Output, asked: FileRun) -> None:
    """Print the IDs of what was submitted and is not waited for."""
    document = {"run_id": asked.run_id, "submitted": len(jobs.ids), "submitted_before": jobs.repeated}
    output.result({**document, "request_ids": jobs.ids}, "\n".join(jobs.ids))
    before = f", {jobs.repeated:,} of them before" if asked.is_again else ""
    output.note(f"{count(len(jobs.ids), 'job')} submitted{before}.")
