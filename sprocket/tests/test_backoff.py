from __future__ import annotations

from sprocket.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(first_seconds=0.1, longest_seconds=1.0)
    assert [backoff.pause_seconds(n, chance=1.0) for n in (1, 2, 3, 4, 5, 1000)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_jitter_takes_at_most_half() -> None:
    backoff = Backoff(first_seconds=1.0, longest_seconds=1.0)
    assert backoff.pause_seconds(1, chance=0.0) == 0.5
    assert all(0.5 <= backoff.pause_seconds(1) <= 1.0 for _ in range(100))
