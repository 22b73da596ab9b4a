"""A run: submitting and collecting in turns, through a platform that is away for a while."""

from __future__ import annotations

from jig.errors import PlatformError
from jig.run.collector import Collector
from jig.run.jobs import Counts, RunJobs
from jig.run.submitter import Submitter

AWAY_SECONDS = 60.0  # a platform that restarts, or whose database does, is back by then
AWAY_PAUSE_SECONDS = 1.0
SERVER_TROUBLE = 500


class Run:
    """The jobs of a file on their way.

    Args:
        jobs: what is known of them.
        submitter: sends them.
        collector: sees how they end; None where nobody waits for that.
    """

    def __init__(self, jobs: RunJobs, submitter: Submitter, collector: Collector | None) -> None:
        self._jobs = jobs
        self.submitter = submitter
        self.collector = collector
        self._away_since: float | None = None
        self.trouble = ""
        """Why it does not get on just now."""

    @property
    def is_over(self) -> bool:
        """True when all is submitted, and has ended where that is waited for."""
        return self.submitter.is_over and (self.collector is None or self.counts.ended == self.counts.submitted)

    @property
    def counts(self) -> Counts:
        """How many jobs stand how."""
        return self._jobs.counts()

    @property
    def completed(self) -> int:
        """How many jobs are where the run wants them: ended, or submitted where nobody waits for more."""
        return self.counts.submitted if self.collector is None else self.counts.ended

    def step(self, now: float) -> float:
        """Do what is due; return after how many seconds something will be again.

        Raises:
            PlatformError: the platform refuses, or has been away for too long.
            IncompleteError: it refuses a line, or its queue has been full for too long.
        """
        try:
            pauses = [] if self.submitter.is_over else [self.submitter.step(now)]
            if self.collector is not None and self.counts.ended < self.counts.submitted:
                pauses.append(self._collect(self.collector, now))
        except PlatformError as error:
            return self._away(error, now)
        self._away_since = None
        self.trouble = "the queue is full" if self.submitter.is_full else ""
        return min(pauses, default=0.0)

    def _collect(self, collector: Collector, now: float) -> float:
        before = self.counts.ended
        pause_seconds = collector.step(now)
        if self.counts.ended > before:
            self.submitter.hurry()
        return pause_seconds

    def _away(self, error: PlatformError, now: float) -> float:
        """Wait for a platform that has answered before, for a while."""
        if (error.status is not None and error.status < SERVER_TROUBLE) or not self.counts.submitted:
            raise error
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since >= AWAY_SECONDS:
            raise error
        self.trouble = error.message.rstrip(".")
        return AWAY_PAUSE_SECONDS
