"""`jig submit`: one job, or with `--file` many."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from jig.client import Client
from jig.errors import UsageError
from jig.live import JobView, transfer_bar
from jig.nearest import naming
from jig.options import PROJECT_DEFAULTS, Duration, Name, ProjectGlobals
from jig.output import Output
from jig.payload import parse_payload, with_uploads
from jig.run.job_lines import MAX_DEADLINE_DAYS
from jig.run.results import STANDARD_OUTPUT
from jig.session import Session
from jig.storage import upload_file
from jig.units import SECONDS_PER_DAY, duration_text
from jig.waiting import has_ready_replica, why_pending
from jig.watch import find_deployment, polled, watch_job

PROMPT = 'A text: the payload {"prompt": TEXT}.'
PAYLOAD = 'A JSON object, @FILE, or - for standard input; a value "@PATH" in it is uploaded and becomes its URL.'
FILE = (
    'A file of jobs, one JSON object a line: a payload, or {"payload": {...}, "priority": ...}; - for standard input.'
)
WATCH = "Wait for the result and print it. With --file this is the default."
DEADLINE = "The job fails unless it has ended by then: 30s, 10m, 1h30m."
FAIR_KEY = "Whose job it is: keys get their share of the workers in turn."
IDEMPOTENCY_KEY = "The same key and payload again is the same job, not a second one."
WEBHOOK_URL = "Where the platform posts the job when it has ended."
RUN_ID = "With --file: the name of the run. Go on with an earlier one; no job is submitted twice. [default: a new one]"
RESULTS = "With --file: write the results here, one JSON object a line, in the jobs' order; - for standard output."
FORCE = "Overwrite the file of --output."


@Parameter(name="*")
@dataclass(frozen=True)
class JobOptions:
    """What a job may set beside its payload."""

    priority: Annotated[int, Parameter(help="Higher goes first.")] = 0
    fair_key: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=FAIR_KEY)] = None
    idempotency_key: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=IDEMPOTENCY_KEY)] = None
    deadline: Annotated[Duration | None, Parameter(help=DEADLINE)] = None
    webhook_url: Annotated[str | None, Parameter(help=WEBHOOK_URL)] = None

    def fields(self) -> dict[str, Any]:
        """The fields that are set, as the platform takes them.

        Raises:
            UsageError: the deadline is none that the platform takes.
        """
        fields = {
            "priority": self.priority,
            "fair_key": self.fair_key,
            "idempotency_key": self.idempotency_key,
            "deadline_seconds": None if self.deadline is None else check_deadline(self.deadline),
            "webhook_url": self.webhook_url,
        }
        return {key: value for key, value in fields.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True)
class FileOptions:
    """What only the jobs of a file have."""

    file: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=FILE)] = None
    run_id: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=RUN_ID)] = None
    output: Annotated[str | None, Parameter(name=("--output", "-o"), allow_leading_hyphen=True, help=RESULTS)] = None
    force: Annotated[bool, Parameter(negative=(), show_default=False, help=FORCE)] = False


JOB_DEFAULTS = JobOptions()
FILE_DEFAULTS = FileOptions()


def submit(
    name: Name = None,
    *,
    prompt: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=PROMPT)] = None,
    payload: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=PAYLOAD)] = None,
    job: JobOptions = JOB_DEFAULTS,
    watch: Annotated[bool | None, Parameter(name=("--watch", "-w"), negative="--no-watch", help=WATCH)] = None,
    file: FileOptions = FILE_DEFAULTS,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Submit a job to a deployment's queue, or all the jobs of a file."""
    session = Session(options)
    if file.file is not None:
        check_file_options(prompt, payload, job, file, is_watched=watch is not False, is_json=options.json)
        submit_many(session, session.deployment_name(name), job, file, is_watched=watch is not False)
        return
    if file != FILE_DEFAULTS:
        raise UsageError("--run-id, --output and --force go with --file.")
    body = parse_payload(prompt, payload)
    fields = job.fields()
    submit_one(session, session.deployment_name(name), body, fields, is_watched=bool(watch))


def submit_one(
    session: Session, name: str, payload: dict[str, Any], fields: dict[str, Any], *, is_watched: bool
) -> None:
    """Submit a job; print its ID, or wait and print its result."""
    client, output = session.client, session.output
    body = {"model": name, "payload": with_uploads(payload, lambda path: upload(client, output, path)), **fields}
    with naming(client, name):
        job = client.post("/v1/queue/submit", body, is_repeatable="idempotency_key" in fields)
    request_id = str(job["request_id"])
    before = f" was submitted before with this key, and is {job.get('status')}" if job.get("duplicate") else ""
    if not is_watched:
        output.result(job, request_id)
        output.note(f"The job{before}." if before else f"Its result: jig job-status {request_id}")
        if not before:
            note_idle_deployment(client, output, name)
        return
    output.note(f"Job {request_id}{before}")
    view = JobView(output)
    finished = watch_job(client, view, name, request_id, polled(client, name, request_id, view.note))
    output.result(finished, json.dumps(finished.get("outputs"), indent=2, ensure_ascii=False))


def submit_many(session: Session, name: str, job: JobOptions, file: FileOptions, *, is_watched: bool) -> None:
    """Submit the jobs of a file."""
    from jig.commands.submit_file import FileRun, new_run_id, submit_file  # noqa: PLC0415  one job needs none of it

    asked = FileRun(
        path=str(file.file),
        name=name,
        fields=job.fields(),
        is_watched=is_watched,
        run_id=file.run_id or new_run_id(),
        is_again=file.run_id is not None,
        output=file.output,
        force=file.force,
    )
    submit_file(session.client, session.output, asked)


def check_file_options(
    prompt: str | None, payload: str | None, job: JobOptions, file: FileOptions, *, is_watched: bool, is_json: bool
) -> None:
    """The options fit a file of jobs.

    Raises:
        UsageError: they do not.
    """
    if prompt is not None or payload is not None:
        raise UsageError("Say what to submit: --file, or one job with --prompt or --payload.")
    if job.idempotency_key is not None:
        raise UsageError("With --file each job has a key of its own.", hint="A whole run is repeated with --run-id.")
    if file.output is not None and not is_watched:
        raise UsageError("--output waits for the results, --no-watch does not.")
    if file.output == STANDARD_OUTPUT and is_json:
        raise UsageError("--json and --output - would both write to standard output.", hint="Give --output a file.")
    if file.run_id == "":
        raise UsageError("--run-id is empty.")


def check_deadline(seconds: float) -> float:
    """The seconds of `--deadline`.

    Raises:
        UsageError: the platform takes none so short or so long.
    """
    if not 0 < seconds <= MAX_DEADLINE_DAYS * SECONDS_PER_DAY:
        shown = duration_text(round(seconds))
        raise UsageError(f"--deadline {shown}: it must be above 0 and at most {MAX_DEADLINE_DAYS}d.")
    return seconds


def upload(client: Client, output: Output, path: Path) -> str:
    """Store a file of the payload under a progress bar; return its URL."""
    with transfer_bar(output, path.name, path.stat().st_size) as progress:
        return upload_file(client, path, progress)


def note_idle_deployment(client: Client, output: Output, name: str) -> None:
    """Say so where no replica is there to take the job."""
    deployment = None if output.json else find_deployment(client, name)
    if deployment and not has_ready_replica(deployment):
        output.note(why_pending(deployment))
