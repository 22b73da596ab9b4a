"""Seeing how the jobs of a run end: asked for many at a time, the oldest first."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jig.client import Client
from jig.errors import PlatformError
from jig.job import TERMINAL, error_text
from jig.run.jobs import RunJobs
from jig.run.results import Results

LOOK_JOBS = 1000  # the most that the platform answers about at a time
FEWEST_JOBS = 20
LOOK_BYTES = 8 * 1024 * 1024  # an answer should not be much larger: results may have megabytes each
LOOKS_PER_STEP = 5  # then whoever watches wants to see something
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
PAUSE_GROWTH = 1.3
PAUSE_PER_LOOK = 10  # looking takes no more than a tenth of the time: the platform has better things to do
ROVE_SECONDS = 1.0
ERRORS_KEPT = 5
GONE = "gone"


class Collector:
    """Collects how jobs have ended.

    Args:
        client: the platform.
        name: the deployment.
        jobs: those of the run.
        results: where results are kept, if anybody wants them.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        jobs: RunJobs,
        results: Results | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._name = name
        self._jobs = jobs
        self._results = results
        self._clock = clock
        self._front = 0
        self._rover = 0
        self._most = LOOK_JOBS
        self._guess = FEWEST_JOBS
        self._due_at = self._rove_at = 0.0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self.errors: list[tuple[int, str, str]] = []
        """The first that came, each with its line and the job's ID."""

    def step(self, now: float) -> float:
        """Look, if it is time; return after how many seconds to look again.

        Raises:
            PlatformError: the platform is away.
        """
        if now < self._due_at:
            return self._due_at - now
        started_at = self._clock()
        ended = self._look_ahead()
        if now >= self._rove_at:
            ended += self._rove()
            self._rove_at = now + ROVE_SECONDS
        took_seconds = self._clock() - started_at
        grown = FIRST_PAUSE_SECONDS if ended else self._pause_seconds * PAUSE_GROWTH
        self._pause_seconds = min(max(grown, took_seconds * PAUSE_PER_LOOK), LONGEST_PAUSE_SECONDS)
        self._due_at = now + self._pause_seconds
        return self._pause_seconds

    def first_open(self) -> str | None:
        """The ID of the first job that has not ended."""
        found = self._jobs.open_from(self._front, 1)
        return self._jobs.ids[found[0]] if found else None

    def _look_ahead(self) -> int:
        """Look at the oldest jobs, and at more as long as all of those have ended; return how many had."""
        total = 0
        for _ in range(LOOKS_PER_STEP):
            open_jobs = self._jobs.open_from(self._front, min(self._guess, self._most))
            self._front = open_jobs[0] if open_jobs else len(self._jobs.ids)
            ended = self._look(open_jobs)
            total += ended
            # About twice as many as have ended: what comes after them waits still.
            self._guess = min(LOOK_JOBS, max(FEWEST_JOBS, 2 * ended))
            if not open_jobs or ended < len(open_jobs):
                break
        return total

    def _rove(self) -> int:
        """Look at some jobs further on, each time at others, and at more as long as most of those have ended.

        Jobs end out of turn too: those of a higher priority, or of another key.
        """
        total = 0
        for _ in range(LOOKS_PER_STEP):
            open_jobs = self._jobs.open_from(max(self._rover, self._front), self._most)
            self._rover = open_jobs[-1] + 1 if open_jobs else 0
            ended = self._look(open_jobs)
            total += ended
            if 2 * ended <= len(open_jobs):
                break
        return total

    def _look(self, open_jobs: list[int]) -> int:
        if not open_jobs:
            return 0
        found = self._ask([self._jobs.ids[at] for at in open_jobs])
        return sum(self._note(at, found.get(self._jobs.ids[at])) for at in open_jobs)

    def _ask(self, request_ids: list[str]) -> dict[str, dict[str, Any]]:
        body = {"model": self._name, "request_ids": request_ids, "include": "outputs"}
        try:
            response = self._client.request("POST", "/v1/queue/results", is_repeatable=True, json=body)
        except PlatformError as error:
            if error.body.get("code") != "answer_too_large" or len(request_ids) == 1:
                raise
            half = len(request_ids) // 2
            return self._ask(request_ids[:half]) | self._ask(request_ids[half:])
        self._most = fitting(len(request_ids), len(response.content))
        return {job["request_id"]: job for job in self._client.document(response)["data"]}

    def _note(self, at: int, job: dict[str, Any] | None) -> bool:
        """Note how a job stands; True where it has ended."""
        if job is not None and job["status"] not in TERMINAL:
            return False
        ending = GONE if job is None else str(job["status"])
        line, request_id = self._jobs.lines[at], self._jobs.ids[at]
        self._jobs.end(at, ending)
        if self._results is not None:
            self._results.add(at, line, job or {"request_id": request_id}, ending)
        if ending != "done" and len(self.errors) < ERRORS_KEPT:
            self.errors.append((line, request_id, ending_text(job)))
        return True


def ending_text(job: dict[str, Any] | None) -> str:
    """Why a job has no result, in one line."""
    if job is None:
        return "the platform no longer has it, so how it ended is unknown"
    return error_text(job) or str(job["status"])


def fitting(jobs: int, count_bytes: int) -> int:
    """How many jobs to ask about next, given how large the answer about so many was."""
    return max(1, min(LOOK_JOBS, 2 * jobs if count_bytes < LOOK_BYTES else jobs * LOOK_BYTES // count_bytes))
