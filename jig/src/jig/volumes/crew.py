"""Several threads that work off units, each of which may bring more of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from jig.patience import patiently

PATIENCE_SECONDS = 120.0  # a platform that is away for longer is not just being restarted
END_SECONDS = 2.0  # a thread that hears of the end notices within a chunk; none is worth waiting longer for

T = TypeVar("T")
Unit = Callable[[], "Iterable[Unit]"]
"""Something to do; it returns what is to be done after it."""


class StoppedError(Exception):
    """Another unit has failed, or Ctrl-C was pressed: what this one does is of no use any more."""


class Crew:
    """So many threads.

    Args:
        size: how many work at once.
        said: called with a sentence, once, where the platform is waited for.
    """

    def __init__(self, size: int, said: Callable[[str], None] | None = None) -> None:
        self._size = size
        self._said = said
        self._changed = threading.Condition()
        self._waiting: deque[Unit] = deque()
        self._busy = 0
        self._error: Exception | None = None
        self._stopped = threading.Event()

    def run(self, units: Iterable[Unit]) -> None:
        """Work all units off, those that they bring before those that wait.

        Raises:
            Exception: the first that a unit raised; the others are given up.
        """
        self._waiting.extend(units)
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._size)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:  # Ctrl-C
            self._stop(None)
            deadline = time.monotonic() + END_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            raise
        if self._error is not None:
            raise self._error

    def check(self) -> None:
        """Go on only if the others do.

        Raises:
            StoppedError: they do not.
        """
        if self._stopped.is_set():
            raise StoppedError

    def patiently(self, call: Callable[[], T], patience_seconds: float = PATIENCE_SECONDS) -> T:
        """Call, again and again while the platform is unwell, for so long after the first failure.

        Raises:
            PlatformError: it is a matter of the call, or takes too long to pass.
        """

        def checked() -> T:
            self.check()
            return call()

        return patiently(checked, patience_seconds, self._say, self._stopped.wait)

    def _say(self, text: str) -> None:
        with self._changed:
            said, self._said = self._said, None
        if said is not None:
            said(text)

    def _work(self) -> None:
        while (unit := self._next()) is not None:
            try:
                more = tuple(unit())
            except StoppedError:
                more = ()
            except Exception as error:  # noqa: BLE001  `run` raises it
                more = ()
                self._stop(error)
            with self._changed:
                self._busy -= 1
                self._waiting.extendleft(reversed(more))
                self._changed.notify_all()

    def _next(self) -> Unit | None:
        """The next unit, once there is one; None where there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._busy or self._stopped.is_set())
            if self._stopped.is_set() or not self._waiting:
                return None
            self._busy += 1
            return self._waiting.popleft()

    def _stop(self, error: Exception | None) -> None:
        with self._changed:
            self._error = self._error or error
            self._stopped.set()
            self._changed.notify_all()
