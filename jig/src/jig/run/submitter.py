"""Submitting the jobs of a run, portion by portion, as fast as the platform takes them and not faster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jig.client import Client
from jig.errors import IncompleteError, PlatformError, QueueFullError
from jig.run.jobs import RunJobs
from jig.run.portions import PORTION_JOBS, Item, request_body

FULL_SECONDS = 600.0  # a queue that takes nothing for so long is not worked, and somebody should know
LONGEST_PAUSE_SECONDS = 30.0
SMALLER = 10  # the largest portion is a single job after three refusals; each that is taken doubles the next one
BAD_REQUEST = 400
ONE_HINT = "A platform that is older than this jig takes one job at a time: then update it."
ITEM_PARAM = re.compile(r"\[(\d+)\]")  # at its start: `[17].payload`


class Submitter:
    """Submits a run's jobs.

    Args:
        client: the platform.
        jobs: where those that it takes are noted.
        portions: what to submit, in order.
        file_name: as errors call the file.
    """

    def __init__(self, client: Client, jobs: RunJobs, portions: Iterator[list[Item]], file_name: str) -> None:
        self._client = client
        self._jobs = jobs
        self._portions = portions
        self._file_name = file_name
        self._waiting: list[Item] = []
        self._most = PORTION_JOBS
        self._due_at = 0.0
        self._full_since: float | None = None
        self.is_over = False
        self.in_flight = 0
        """Jobs of a request whose answer has not come, so nobody knows whether it was taken."""

    @property
    def is_full(self) -> bool:
        """True while the queue takes no more."""
        return self._full_since is not None

    def step(self, now: float) -> float:
        """Submit one portion if it is time; return after how many seconds the next may go.

        Raises:
            IncompleteError: the platform refuses a line, or has taken none for too long.
            PlatformError: it is away.
        """
        if self.is_over or now < self._due_at:
            return max(0.0, self._due_at - now)
        if not self._waiting:
            self._waiting = next(self._portions, [])
        if not self._waiting:
            self.is_over = True
            return 0.0
        portion = self._waiting[: self._most]
        try:
            taken = self._submit(portion)
        except QueueFullError as error:
            self._wait(error, len(portion), now)
            return self._due_at - now
        self._take(portion, taken)
        return 0.0

    def hurry(self) -> None:
        """A job has ended, so there is room: do not wait any longer."""
        self._due_at = 0.0

    def _submit(self, portion: list[Item]) -> list[dict[str, Any]]:
        self.in_flight = len(portion)
        try:
            # Each job has an idempotency key, so a portion whose answer was lost may go again.
            answer = self._client.post("/v1/queue/submit", request_body(portion), is_repeatable=True)
        except PlatformError as error:
            if error.status is not None:
                self.in_flight = 0
            if refused := self._refused(portion, error):
                raise refused from error
            if error.status == BAD_REQUEST:
                error.hint = error.hint or ONE_HINT
            raise
        self.in_flight = 0
        taken = answer.get("data")
        if not isinstance(taken, list) or len(taken) != len(portion):
            raise PlatformError("The platform did not say what became of each job.", status=200, hint=ONE_HINT)
        return taken

    def _take(self, portion: list[Item], taken: list[dict[str, Any]]) -> None:
        for item, job in zip(portion, taken, strict=True):
            self._jobs.add(item.line, str(job["request_id"]), is_repeated=bool(job.get("duplicate")))
        del self._waiting[: len(portion)]
        self._most = min(PORTION_JOBS, self._most * 2)
        self._full_since = None

    def _wait(self, error: QueueFullError, jobs: int, now: float) -> None:
        if self._full_since is None:
            self._full_since = now
        if now - self._full_since >= FULL_SECONDS:
            raise IncompleteError(f"The queue has been full for {FULL_SECONDS / 60:.0f} minutes. {error.message}")
        # A portion is taken whole or not at all, so a smaller one may find room.
        self._most = max(1, jobs // SMALLER)
        self._due_at = now + min(error.retry_after_seconds, LONGEST_PAUSE_SECONDS)

    def _refused(self, portion: list[Item], error: PlatformError) -> IncompleteError | None:
        """The error with the line that it is about, where the platform says which job of the request that is."""
        found = ITEM_PARAM.match(str(error.body.get("param") or ""))
        if found is None or int(found[1]) >= len(portion):
            return None
        return IncompleteError(f"{self._file_name}:{portion[int(found[1])].line}: {error.message}")
