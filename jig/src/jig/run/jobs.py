"""The jobs of a run in the order of their lines: which there are, and how each has ended."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

# How a job stands with the run, one byte each. Gone: the platform no longer has it, so nobody knows how it ended.
OPEN = 0
ENDINGS: Mapping[str, int] = {"done": 1, "failed": 2, "canceled": 3, "gone": 4}


@dataclass(frozen=True)
class Counts:
    """How many jobs stand how.

    Args:
        total: the lines of the file.
        submitted: have an ID.
        repeated: of those, had been submitted by an earlier run of the same name.
        done: have a result.
        failed: ended with an error.
        canceled: were canceled.
        gone: the platform no longer has them.
    """

    total: int
    submitted: int
    repeated: int
    done: int
    failed: int
    canceled: int
    gone: int

    @property
    def ended(self) -> int:
        """Those that nothing more will come of."""
        return self.done + self.failed + self.canceled + self.gone


class RunJobs:
    """The jobs of a run. They are many, so a job is an index, and what is known of it is kept tightly.

    Args:
        total: how many there will be.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.repeated = 0
        self.ids: list[str] = []
        self.lines = array("Q")
        self._states = bytearray()
        self._ended = dict.fromkeys(ENDINGS, 0)

    def add(self, line: int, request_id: str, *, is_repeated: bool) -> None:
        """The job of a line has been submitted; jobs come in the order of their lines."""
        self.ids.append(request_id)
        self.lines.append(line)
        self._states.append(OPEN)
        self.repeated += is_repeated

    def end(self, at: int, ending: str) -> None:
        """The job at an index has ended: done, failed, canceled or gone."""
        self._states[at] = ENDINGS[ending]
        self._ended[ending] += 1

    def open_from(self, start: int, most: int) -> list[int]:
        """The indexes of the first jobs from here on that have not ended."""
        found: list[int] = []
        at = self._states.find(OPEN, start)
        while at >= 0 and len(found) < most:
            found.append(at)
            at = self._states.find(OPEN, at + 1)
        return found

    def counts(self) -> Counts:
        """How many jobs stand how."""
        return Counts(total=self.total, submitted=len(self.ids), repeated=self.repeated, **self._ended)

    def ending(self, at: int) -> str:
        """How the job at an index has ended; empty where it has not."""
        return next((name for name, state in ENDINGS.items() if state == self._states[at]), "")
