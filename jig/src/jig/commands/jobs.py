"""Jobs: `jig submit`, `job-status` and `job-cancel`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from jig.client import Client
from jig.errors import ConflictError, JobError, PlatformError, WatchInterruptedError
from jig.live import transfer_bar
from jig.options import PROJECT_DEFAULTS, Name, ProjectGlobals
from jig.output import Output
from jig.payload import parse_payload, with_uploads
from jig.session import Session
from jig.storage import upload_file
from jig.tables import fields
from jig.units import age, elapsed, rounded, settled
from jig.waiting import has_ready_replica, why_pending

TERMINAL = frozenset({"done", "failed", "canceled"})
FIRST_POLL_SECONDS = 0.05
LONGEST_POLL_SECONDS = 1.0
POLL_GROWTH = 1.3  # a job of milliseconds is seen at once; one of minutes is asked about once a second

PATIENCE_SECONDS = 2.0  # a job that waits longer than this is asked after: its deployment may have nobody to take it

# An error and its traceback are shown when the job has ended; the age of the progress is between worker and platform.
UNSHOWN_INFO = frozenset({"error", "traceback", "progress_age_seconds"})

PROMPT = 'A text: the payload {"prompt": TEXT}.'
PAYLOAD = 'A JSON object, @FILE, or - for standard input; a value "@PATH" in it is uploaded and becomes its URL.'
WATCH = "Wait for the result and print it."

RequestId = Annotated[str, Parameter(name="--request-id", help="The job's ID, as submit printed it.")]


def submit(
    name: Name = None,
    *,
    prompt: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=PROMPT)] = None,
    payload: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=PAYLOAD)] = None,
    priority: Annotated[int, Parameter(help="Higher goes first.")] = 0,
    watch: Annotated[bool, Parameter(name=("--watch", "-w"), negative=(), show_default=False, help=WATCH)] = False,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Submit a job to a deployment's queue."""
    session = Session(options)
    body = parse_payload(prompt, payload)
    name = session.deployment_name(name)
    client, output = session.client, session.output
    body = with_uploads(body, lambda path: upload(client, output, path))
    job = client.post("/v1/queue/submit", {"model": name, "payload": body, "priority": priority})
    request_id = str(job["request_id"])
    if not watch:
        output.result(job, request_id)
        output.note(f"Its result: jig job-status {request_id}")
        note_idle_deployment(client, output, name)
        return
    output.note(f"Job {request_id}")
    finished = watch_job(client, output, name, request_id)
    output.result(finished, json.dumps(finished.get("outputs"), indent=2, ensure_ascii=False))


def job_status(request_id: RequestId, name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Show a job: its state, its progress and its result."""
    session = Session(options)
    job = session.client.get("/v1/queue/status", model=session.deployment_name(name), request_id=request_id)
    session.output.result(job, summary(job, datetime.now(UTC)))


def job_cancel(request_id: RequestId, name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Cancel a job: a pending one at once, a running one as soon as its worker takes it up."""
    session = Session(options)
    body = {"model": session.deployment_name(name), "request_id": request_id}
    try:
        answer = session.client.post("/v1/queue/cancel", body)
    except ConflictError as error:
        if not error.body.get("cancel_requested"):
            raise
        answer = {"request_id": request_id, "status": error.body.get("status"), "cancel_requested": True}
    asked = answer.get("cancel_requested") and answer.get("status") != "canceled"
    text = "It is running: its worker has been asked to stop." if asked else f"{request_id} is canceled."
    session.output.result(answer, text)


def upload(client: Client, output: Output, path: Path) -> str:
    """Store a file of the payload under a progress bar; return its URL."""
    with transfer_bar(output, path.name, path.stat().st_size) as progress:
        return upload_file(client, path, progress)


def note_idle_deployment(client: Client, output: Output, name: str) -> None:
    """Say so where no replica is there to take the job."""
    deployment = None if output.json else find_deployment(client, name)
    if deployment and not has_ready_replica(deployment):
        output.note(why_pending(deployment))


def find_deployment(client: Client, name: str) -> dict[str, Any] | None:
    """The deployment, or None where this key may not see it, or it is gone: the job itself tells what matters."""
    try:
        deployment: dict[str, Any] = client.get(f"/v1/deployments/{name}")
    except PlatformError:
        return None
    return deployment


class PendingWatch:
    """Says why a watched job waits, once it has waited for a while, and again when the reason is another.

    Args:
        client: the platform.
        output: where it is said; with `--json` nothing is asked and nothing said.
        name: the deployment.
    """

    def __init__(self, client: Client, output: Output, name: str) -> None:
        self._client = client
        self._output = output
        self._name = name
        self._since: float | None = None
        self._said = ""

    def update(self, job: Mapping[str, Any], seconds: float) -> None:
        """Take one more look at the job, so many seconds after the first."""
        if job["status"] != "pending":
            self._since = None
            return
        if self._since is None:
            self._since = seconds
        if self._output.json or seconds - self._since < PATIENCE_SECONDS:
            return
        deployment = find_deployment(self._client, self._name)
        line = why_pending(deployment) if deployment else ""
        if line and settled(line) != self._said:
            self._said = settled(line)
            self._output.note(timed(line, seconds))


def timed(line: str, seconds: float) -> str:
    """A line of the watch, after the time that it has been going on."""
    return f"  {elapsed(seconds):>8}  {line}"


def watch_job(client: Client, output: Output, name: str, request_id: str) -> dict[str, Any]:
    """Follow a job until it is done, and return it.

    Raises:
        JobError: it failed or was canceled.
        WatchInterruptedError: Ctrl-C; the job goes on.
    """
    pause_seconds, said = FIRST_POLL_SECONDS, ""
    started_at = time.monotonic()
    pending = PendingWatch(client, output, name)
    try:
        while True:
            job: dict[str, Any] = client.get("/v1/queue/status", model=name, request_id=request_id)
            line = progress_line(job)
            seconds = time.monotonic() - started_at
            if line != said:
                output.note(timed(line, seconds))
                said, pause_seconds = line, FIRST_POLL_SECONDS
            if job["status"] in TERMINAL:
                break
            pending.update(job, seconds)
            time.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * POLL_GROWTH, LONGEST_POLL_SECONDS)
    except KeyboardInterrupt as error:
        hint = f"Its result: jig job-status {request_id}\nTo stop it: jig job-cancel {request_id}"
        raise WatchInterruptedError(f"Job {request_id} goes on.", hint=hint) from error
    if job["status"] != "done":
        if trace := traceback_of(job):
            output.note(trace, "dim")
        raise JobError(ending(job), job=job)
    return job


def progress_line(job: Mapping[str, Any]) -> str:
    """A job's state with what its worker says about it, in one line."""
    info = {key: value for key, value in (job.get("info") or {}).items() if key not in UNSHOWN_INFO}
    said = ", ".join(f"{key} {shown_value(value)}" for key, value in info.items())
    waits = f", position {job['position']}" if job.get("position") is not None else ""
    again = f", retry {job['retries']}" if job.get("retries") else ""
    asked = ", asked to stop" if job.get("cancel_requested") and job["status"] == "running" else ""
    return f"{job['status']}{waits}{again}{asked}{f': {said}' if said else ''}"


def shown_value(value: object) -> str:
    """What a worker says, as a person reads it."""
    return value if isinstance(value, str) else json.dumps(rounded(value), ensure_ascii=False)


def ending(job: Mapping[str, Any]) -> str:
    """How a job without a result ended."""
    why = error_text(job)
    verb = "failed" if job["status"] == "failed" else f"was {job['status']}"
    return f"The job {verb}{f': {why}' if why else '.'}"


def error_text(job: Mapping[str, Any]) -> str:
    """Why the job failed, as its worker told it."""
    return str(job.get("error") or (job.get("info") or {}).get("error") or "")


def traceback_of(job: Mapping[str, Any]) -> str:
    """Where in the worker's code the job failed, if the worker told."""
    return str((job.get("info") or {}).get("traceback") or "").rstrip()


def summary(job: Mapping[str, Any], now: datetime) -> str:
    """The text of `jig job-status`."""
    pairs = [
        ("Job", str(job["request_id"])),
        ("Status", progress_line(job)),
        ("Why", traceback_of(job) or error_text(job)),
        ("Created", f"{age(job.get('created_at'), now)} ago"),
        ("Claimed", f"{age(job['claimed_at'], now)} ago" if job.get("claimed_at") else ""),
        ("Done", f"{age(job['done_at'], now)} ago" if job.get("done_at") else ""),
        ("Inputs", json.dumps(job.get("inputs"), ensure_ascii=False)),
        ("Outputs", json.dumps(job["outputs"], indent=2, ensure_ascii=False) if job.get("outputs") else ""),
    ]
    return fields((key, value) for key, value in pairs if value)
