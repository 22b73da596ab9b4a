"""How the ranks of a job take up a cancel at one and the same step, though the news reaches them at different times.

Ranks that compute together meet in every step. Were `cancelled()` to turn True in one of them a step earlier than in
another, the other would wait for it in a meeting that never comes. So it turns True at a call that all have agreed on:
each counts its calls and holds still while it is asked how many there were; then the first call that none has made yet
is the one.
"""

from __future__ import annotations

import threading

HOLD_SECONDS = 10.0
"""For the others to say how far they are; the longest that a call may be held up. They answer in milliseconds."""


class Accord:
    """One rank's part, for one job. The model's threads ask; another thread holds and settles."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls = 0
        self._held = False
        self._first: int | None = None

    def says_cancelled(self) -> bool:
        """Count a call of `cancelled()`, and answer it."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._held, HOLD_SECONDS):
                self._held = False
            self._calls += 1
            return self._first is not None and self._calls >= self._first

    def hold(self) -> int:
        """Let no call through from now on; give how many there were."""
        with self._changed:
            self._held = True
            return self._calls

    @property
    def settled(self) -> bool:
        """Whether a cancel has come, and with which call it is taken up."""
        return self._first is not None

    def settle(self, first: int) -> None:
        """Let calls through; those from number `first` on say that the job is cancelled."""
        with self._changed:
            self._held, self._first = False, first
            self._changed.notify_all()


def first_cancelled(calls: list[int]) -> int:
    """Choose the call, counted from 1, from which on `cancelled()` says True in every rank.

    Args:
        calls: how many calls each rank has made.
    """
    return max(calls) + 1
