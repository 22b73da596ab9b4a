"""How many jobs to claim before there is a free slot for them: none, unless predict is over in a moment; pure.

A worker that only asks for a job when it has nothing to do spends as long on the way to the platform and back as a
small job takes. So where predicts are short and steady it has the next ones at hand, as a batch that costs the platform
little more than one. Jobs that take longer gain nothing by that, and another worker might have begun with them.
"""

from __future__ import annotations

AHEAD_SECONDS = 0.005
"""What is claimed ahead is work for so long: to another worker a job would be as long on its way."""
AHEAD_LIMIT = 8
STEADY_PREDICTS = 10
"""So many in a row must have been short."""
WEIGHT_OF_LAST = 0.2

PATIENCE_SECONDS = 0.25
"""A job that was claimed ahead and has not begun by then goes back to the queue: the one before it is not so short."""


class Pace:
    """Watches how long predicts take."""

    def __init__(self) -> None:
        self._mean_seconds = 0.0
        self._short_ones = 0

    def note(self, seconds: float) -> None:
        """Take note of a predict that has ended."""
        if seconds > AHEAD_SECONDS:
            self.broken()
            return
        weight = WEIGHT_OF_LAST if self._short_ones else 1.0
        self._mean_seconds += weight * (seconds - self._mean_seconds)
        self._short_ones += 1

    def broken(self) -> None:
        """Take note of a predict that takes long, and may do so for a while yet."""
        self._short_ones = 0

    @property
    def ahead(self) -> int:
        """How many jobs to claim beyond those that there are slots for."""
        if self._short_ones < STEADY_PREDICTS:
            return 0
        return min(AHEAD_LIMIT, int(AHEAD_SECONDS / max(self._mean_seconds, 1e-6)))
