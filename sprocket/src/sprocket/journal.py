"""The lines that say how jobs have ended: one for each, until there are so many that nobody would read them.

A line costs a worker 0.03 ms, half as much as all the rest that it does for a small job; and the platform stores it.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from .job import Job
from .logs import log

SPAN_SECONDS = 1.0
LINES_PER_SPAN = 20
"""More than that in a second are counted, and summed up in one line."""


class Journal:
    """Writes about jobs that have ended. Use inside a running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._span_ends_at = 0.0
        self._lines = 0
        self._unwritten: Counter[str] = Counter()

    def note(self, job: Job, result: str, seconds: float, attempt: int) -> None:
        """Take note of a job that has ended.

        Args:
            job: the job.
            result: done, failed, canceled or dropped.
            seconds: how long it was in hand.
            attempt: the number of its attempt.
        """
        now = self._loop.time()
        if now >= self._span_ends_at and not self._unwritten:
            self._span_ends_at = now + SPAN_SECONDS
            self._lines = 0
        if self._lines < LINES_PER_SPAN:
            self._lines += 1
            log.info("%s after %.3f s (attempt %d)", result, seconds, attempt, extra=job.tag)
            return
        if not self._unwritten:
            self._loop.call_at(self._span_ends_at, self.sum_up)
        self._unwritten[result] += 1

    def sum_up(self) -> None:
        """Write about those that got no line of their own."""
        if self._unwritten:
            counts = ", ".join(f"{count} {result}" for result, count in sorted(self._unwritten.items()))
            log.info("and %d more jobs within a second: %s", self._unwritten.total(), counts)
            self._unwritten.clear()
