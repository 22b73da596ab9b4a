"""When a job will start, as far as that can be known: how honest the bounds are, and what they cost."""

import heapq
import random
import time
from collections.abc import Callable, Iterator

import pytest

from machineshop.services.forecast import Workers, forecast

LENGTHS: dict[str, Callable[[random.Random], float]] = {
    "exponential": lambda dice: dice.expovariate(1.0),
    "constant": lambda _: 1.0,
    "bimodal": lambda dice: dice.choice((0.1, 10.0)),
    "mostly short": lambda dice: 20.0 if dice.random() < 0.1 else 1.0,
}


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", LENGTHS)
def test_at_least_four_in_five_jobs_start_within_the_bounds(kind: str, workers: int) -> None:
    dice = random.Random(workers)
    inside = [is_inside for _ in range(60) for is_inside in _ask(dice, LENGTHS[kind], workers)]
    assert len(inside) > 300
    assert sum(inside) / len(inside) >= 0.8


def _ask(dice: random.Random, length: Callable[[random.Random], float], workers: int) -> Iterator[bool]:
    """Whether jobs of one backlog started when that was forecast for them, asked at random moments."""
    runs: list[tuple[float, float]] = []
    free_at = [0.0] * workers
    for _ in range(400):
        began_at = free_at[0]
        ends_at = began_at + length(dice)
        heapq.heapreplace(free_at, ends_at)
        runs.append((began_at, ends_at))
    ended = sorted((ends_at, ends_at - began_at) for began_at, ends_at in runs)
    for ahead in (0, 1, 2, 5, 20, 100):
        now = dice.uniform(ended[50][0], ended[200][0])
        durations = [seconds for ends_at, seconds in ended if ends_at <= now][-50:]
        ages = tuple(now - began_at for began_at, ends_at in runs if began_at <= now < ends_at)
        starts = [began_at for began_at, _ in runs if began_at > now]
        wait = forecast(durations, Workers(number=workers, ages_seconds=ages), ahead)
        assert wait is not None
        yield wait.earliest_seconds <= starts[ahead] - now <= wait.latest_seconds


def test_a_forecast_for_many_workers_and_a_long_line_is_quick_and_right() -> None:
    dice = random.Random(1)
    durations = [dice.uniform(5, 15) for _ in range(50)]
    workers = Workers(number=2_000, ages_seconds=tuple(dice.uniform(0, 5) for _ in range(2_000)))
    began = time.process_time()
    wait = forecast(durations, workers, 9_999)
    assert time.process_time() - began < 0.5
    assert wait is not None
    assert wait.likely_seconds == pytest.approx(9_999 * 10 / 2_000, rel=0.2)
