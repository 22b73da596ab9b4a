"""For how long workers have been heard: while this server was away, halted, or without its database, nobody was.

Place in the flow: who judges workers by their silence (`reclaimer.py`, `wedged.py`) asks here for how long there was
somebody to speak to. A server that comes back draws no conclusion from what it could not hear.
"""

import time
from collections.abc import Callable

# Passes come each second or two: with more than this between two of them something stood still, or the clock was set.
BREAK_SECONDS = 5.0


class Hearing:
    """Kept by one control loop, which says when its passes begin and end.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._since: float | None = None
        self._until = 0.0

    def since(self, now: float) -> float:
        """A pass begins: since when workers have been heard without a break."""
        if self._since is None or not 0.0 <= now - self._until <= BREAK_SECONDS:
            self._since = self._until = now
        return self._since

    def go_on(self) -> None:
        """The pass has come to its end. One that fails does not: the database is away, or something is wrong."""
        self._until = self._clock()
