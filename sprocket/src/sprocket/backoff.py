"""How long to wait before another try; pure."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Doubling pauses with jitter, so that a thousand workers do not come back in the same millisecond."""

    first_seconds: float
    longest_seconds: float

    def pause_seconds(self, failures: int, chance: float | None = None) -> float:
        """Give the pause after so many failures in a row (1 or more).

        Args:
            failures: how many tries have failed since the last success.
            chance: 0 to 1, where in the upper half of the span to land; random where None.
        """
        span = min(self.longest_seconds, self.first_seconds * 2.0 ** min(failures - 1, 30))
        share = random.random() if chance is None else chance  # noqa: S311 - spreads load, guards nothing
        return span * (0.5 + share / 2)
