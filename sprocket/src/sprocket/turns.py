"""Names for requests that claim jobs: whoever got no answer asks again by the same name, and gets the same jobs.

Without that, jobs whose claim was made while its answer got lost would wait until the claim runs out, as nobody knows
that this worker never heard of them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

TURN_ID = "x-turn-id"
TURN_TRIES = "x-turn-tries"
MOST_TRIES = 100
"""What the platform takes; a claim has run out long before."""


class Turns:
    """One worker's requests for jobs, one at a time.

    Args:
        lasting_seconds: how long a claim holds: after that there is nothing to ask for again.
        clock: gives seconds.
    """

    def __init__(self, lasting_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lasting_seconds = lasting_seconds
        self._clock = clock
        self._id: str | None = None
        self._tries = 0
        self._until = 0.0

    def headers(self) -> dict[str, str]:
        """Give what goes with a request: the name of the one before, where that was not answered, else a new one."""
        if self._id is not None and self._tries < MOST_TRIES and self._clock() < self._until:
            self._tries += 1
            return {TURN_ID: self._id, TURN_TRIES: str(self._tries)}
        self._id, self._tries = secrets.token_hex(16), 0
        self._until = self._clock() + self._lasting_seconds
        return {TURN_ID: self._id}

    def answered(self) -> None:
        """Take note that the answer has come, or a definite no."""
        self._id = None
