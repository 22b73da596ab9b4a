"""Following one job until it ends: by asking again and again, or by the platform's events."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from jig.client import Client
from jig.errors import JigError, JobError, NotFoundError, PlatformError, UnauthorizedError, WatchInterruptedError
from jig.events import JobEvents
from jig.job import TERMINAL, Job, ending, traceback_of, watch_line
from jig.live import JobView, cut
from jig.output import Output
from jig.waiting import clause, reason, why_text

FIRST_POLL_SECONDS = 0.05
LONGEST_POLL_SECONDS = 1.0
POLL_GROWTH = 1.3  # a job of milliseconds is seen at once; one of minutes is asked about once a second
TICK_SECONDS = 1.0  # how often a place in line is looked up, and a clock on a terminal goes on

BRIEF_COLUMNS = 60  # of a reason that has been said: uv's, say, is many lines long

PATIENCE_SECONDS = 2.0  # a job that waits longer than this is asked after: its deployment may have nobody to take it


def watch_job(client: Client, view: JobView, name: str, request_id: str, looks: Iterator[Job]) -> Job:
    """Show a job until it has ended, and return it.

    Args:
        client: the platform.
        view: where it is shown.
        name: the deployment.
        request_id: the job's.
        looks: the job, again and again, as `polled` or `followed` give it.

    Raises:
        JobError: it failed or was canceled.
        WatchInterruptedError: Ctrl-C; the job goes on.
    """
    try:
        with view.shown():
            job = last_look(Reasons(client, view.output, name), view, looks)
    except KeyboardInterrupt as error:
        hint = f"Its result: jig job-status {request_id}\nTo stop it: jig job-cancel {request_id}"
        raise WatchInterruptedError(f"Job {request_id} goes on.", hint=hint) from error
    return with_result(job, view.output)


def last_look(reasons: Reasons, view: JobView, looks: Iterator[Job]) -> Job:
    """Show the job at each look; return it as it ended."""
    started_at = time.monotonic()
    for job in looks:
        seconds = time.monotonic() - started_at
        view.chunks(job)
        why, now = reasons.why(job, seconds), datetime.now(UTC)
        brief = watch_line(job, cut(why, BRIEF_COLUMNS), now)
        view.update(str(job["status"]), watch_line(job, why, now), seconds, brief)
        if job["status"] in TERMINAL:
            return job
    raise AssertionError("unreachable: looks have no end before the job's")


def with_result(job: Job, output: Output) -> Job:
    """The job, where it is done.

    Raises:
        JobError: it failed or was canceled.
    """
    if job["status"] == "done":
        return job
    if trace := traceback_of(job):
        output.note(trace, "dim")
    raise JobError(ending(job), job=dict(job))


def polled(client: Client, name: str, request_id: str, note: Callable[[str], None]) -> Iterator[Job]:
    """The job as it is now, at first often, then once a second; often again after each change of state.

    One that streams is followed from then on: its last chunks are seen only by who follows it. `note` as there.
    """
    pause_seconds, state = FIRST_POLL_SECONDS, ""
    while True:
        job = status_of(client, name, request_id)
        if job["status"] != state:
            state, pause_seconds = job["status"], FIRST_POLL_SECONDS
        yield job
        if job.get("chunks"):
            yield from followed(client, name, request_id, note)
        time.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * POLL_GROWTH, LONGEST_POLL_SECONDS)


def followed(client: Client, name: str, request_id: str, note: Callable[[str], None]) -> Iterator[Job]:
    """The job at each of its changes, and once a second: while it waits, with its place in line then.

    Events are read on a thread of their own, so that time goes on between them. `note` is called with a sentence when
    the connection has broken.
    """
    arrived: SimpleQueue[Job | JigError] = SimpleQueue()
    events = JobEvents(client, {"model": name, "request_id": request_id}, note)
    Thread(target=forward, args=(events, arrived), daemon=True, name="events").start()
    job: Job | None = None
    while True:
        with contextlib.suppress(Empty):
            arrival = arrived.get(timeout=TICK_SECONDS)
            if isinstance(arrival, JigError):
                raise arrival
            job = arrival
        if job is None:
            continue
        if job["status"] == "pending":
            job = in_line(client, name, request_id) or job
        yield job


def forward(events: JobEvents, arrived: SimpleQueue[Job | JigError]) -> None:
    """Hand on the events until the job has ended, or the reason why there are no more."""
    try:
        for job in events:
            arrived.put(job)
            if job["status"] in TERMINAL:
                return
        arrived.put(PlatformError("The platform no longer has this job."))
    except JigError as error:
        arrived.put(error)


def in_line(client: Client, name: str, request_id: str) -> Job | None:
    """The job with its place in line; None where the platform is away: whoever reads the events decides then."""
    try:
        return status_of(client, name, request_id)
    except (NotFoundError, UnauthorizedError):
        raise
    except PlatformError:
        return None


def status_of(client: Client, name: str, request_id: str) -> Job:
    """The job as it is now.

    Raises:
        NotFoundError: no such job.
    """
    job: Job = client.get("/v1/queue/status", model=name, request_id=request_id)
    return job


class Reasons:
    """Says why a watched job waits: in the platform's sentence, or after a while what its deployment tells.

    Args:
        client: the platform.
        output: with `--json` nothing is shown, so nothing is asked.
        name: the deployment.
    """

    def __init__(self, client: Client, output: Output, name: str) -> None:
        self._client = client
        self._output = output
        self._name = name
        self._since: float | None = None

    def why(self, job: Job, seconds: float) -> str:
        """The reason, empty where there is none to tell, so many seconds after the first look."""
        if job["status"] != "pending":
            self._since = None
            return ""
        if self._since is None:
            self._since = seconds
        queue = job.get("queue") or {}
        told = clause(why_text(queue))
        # Replicas are ready, and none has a job: the deployment tells more. Or the platform is an older one.
        is_told = told and not (queue.get("ready_replicas") and queue.get("running") == 0)
        if is_told or self._output.json or seconds - self._since < PATIENCE_SECONDS:
            return told
        deployment = find_deployment(self._client, self._name)
        return reason(deployment) if deployment else told


def find_deployment(client: Client, name: str) -> Mapping[str, Any] | None:
    """The deployment, or None where this key may not see it, or it is gone: the job itself tells what matters."""
    try:
        deployment: Mapping[str, Any] = client.get(f"/v1/deployments/{name}")
    except PlatformError:
        return None
    return deployment
