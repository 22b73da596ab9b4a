"""Jobs as they are: `jig jobs list`, `show` and `watch`, and `jig job-status`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from jig.client import Client
from jig.errors import UsageError
from jig.events import JobEvents
from jig.job import STATES, change_line, listing, page, summary
from jig.job_list import NO_VALUES, job_pages
from jig.live import JobView
from jig.nearest import naming
from jig.options import PROJECT_DEFAULTS, Name, ProjectGlobals, RequestId
from jig.output import Output
from jig.session import Session
from jig.watch import followed, status_of, watch_job

SHOWN_JOBS = 50

STATUS = f"Of these states alone, joined by commas: {', '.join(STATES)}."
FAIR_KEY = "Of this fair key alone."
LIMIT = f"The newest so many. [default: {SHOWN_JOBS}]"
ALL = "All that the platform keeps."
WATCHED_ID = "The job's ID; without one, every change in the queue is shown until Ctrl-C."


def list_jobs(
    name: Name = None,
    *,
    status: Annotated[str | None, Parameter(help=STATUS)] = None,
    fair_key: Annotated[str | None, Parameter(allow_leading_hyphen=True, help=FAIR_KEY)] = None,
    limit: Annotated[PositiveInt | None, Parameter(help=LIMIT)] = None,
    all_jobs: Annotated[bool, Parameter(name="--all", negative=(), show_default=False, help=ALL)] = False,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """List a deployment's jobs, newest first."""
    session = Session(options)
    if all_jobs and limit is not None:
        raise UsageError("Say either --all or --limit N.")
    name = session.deployment_name(name)
    params: dict[str, object] = {"model": name, "status": states(status), "fair_key": fair_key}
    include = None if options.json else NO_VALUES
    jobs: list[dict[str, Any]] = []
    cursor: str | None = None
    most = None if all_jobs else limit or SHOWN_JOBS
    with naming(session.client, name):
        for each in job_pages(session.client, {**params, "include": include}, most):
            jobs += each.jobs
            cursor = each.next_cursor
    is_filtered = status is not None or fair_key is not None
    none_text = "No such jobs." if is_filtered else "No jobs. Submit one with `jig submit`."
    text = listing(jobs, datetime.now(UTC)) if jobs else none_text
    session.output.result({"object": "list", "data": jobs, "next_cursor": cursor}, text)
    if cursor is not None:
        session.output.note(f"There are more: see them with --limit {10 * len(jobs)} or --all.")


def show(request_id: RequestId, name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Show all that is known about a job: why it waits, its attempts, its result or its error."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        job = status_of(session.client, name, request_id)
    session.output.result(job, page(job, datetime.now(UTC)))


def job_status(request_id: RequestId, name: Name = None, *, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Show a job: its state, its progress and its result."""
    session = Session(options)
    name = session.deployment_name(name)
    with naming(session.client, name):
        job = status_of(session.client, name, request_id)
    session.output.result(job, summary(job, datetime.now(UTC)))


def watch(
    request_id: Annotated[str | None, Parameter(name="--request-id", help=WATCHED_ID)] = None,
    name: Name = None,
    *,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Watch one job until it ends and print its result, or all changes in a queue until Ctrl-C."""
    session = Session(options)
    client, output, name = session.client, session.output, session.deployment_name(name)
    with naming(client, name):
        if request_id is None:
            watch_queue(client, output, name)
            return
        view = JobView(output)
        job = watch_job(client, view, name, request_id, followed(client, name, request_id, view.note))
    output.result(job, json.dumps(job.get("outputs"), indent=2, ensure_ascii=False))


def watch_queue(client: Client, output: Output, name: str) -> None:
    """Print each change of a deployment's jobs as it happens; with `--json` the jobs, one a line."""

    def opened() -> None:
        output.note(f"Changes in the queue of {name}, until Ctrl-C:")

    for job in JobEvents(client, {"model": name}, output.note, opened):
        if output.json:
            output.document(job)
        else:
            output.line(f"{time.strftime('%H:%M:%S')}  {change_line(job)}")
    output.note(f"The deployment {name} is gone.")


def states(words: str | None) -> str | None:
    """The states of `--status`, as the platform takes them.

    Raises:
        UsageError: one of them is none.
    """
    if words is None:
        return None
    wanted: Sequence[str] = [word.strip().lower() for word in words.split(",") if word.strip()]
    for word in wanted:
        if word not in STATES:
            raise UsageError(f"--status {words}: {word!r} is no state of a job.", hint=f"Known: {', '.join(STATES)}.")
    if not wanted:
        raise UsageError("--status names no state.", hint=f"Known: {', '.join(STATES)}.")
    return ",".join(wanted)
