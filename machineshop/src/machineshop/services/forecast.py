"""When a job will start, judged by how long the last ones took. Pure.

Some scenarios are played: each worker's rest of its job and the jobs ahead get lengths from the last ones, and the
times at which our job starts in them are the answer. So it holds for any kind of lengths, all alike or of two kinds,
without knowing which it is. What is not known makes the answer wider: few ended jobs tell the mean badly, so each
scenario has a scale of its own, and any job may be longer than all that were seen.
"""

import heapq
import math
import random
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

# With fewer, nothing is said. Those that end first are the short ones, so each worker should have ended two as well,
# up to as many as are enough in any case.
_LEAST_HISTORY, _ENOUGH_HISTORY = 5, 40
# Shares of the scenarios outside of the interval: nominally 90 % of the jobs start within it.
_EARLIEST, _LATEST = 0.05, 0.95
_SCENARIOS = 64
# So many jobs ahead are played one by one; whole rounds of all workers before them are taken together.
_PLAYED = 48
# More workers than this are taken for this many, with as much less in front of each.
_MAX_WORKERS = 64
# What neither side of the interval is surer of: workers need a moment between two jobs.
_SLACK_SECONDS, _SLACK_SHARE = 0.1, 0.02


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """How long a job will still wait, in seconds."""

    earliest_seconds: float
    likely_seconds: float
    latest_seconds: float


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """Who works off the jobs ahead."""

    number: int
    ages_seconds: tuple[float, ...]
    """For how long those that are busy have been at their jobs; the others are free."""

    def scaled(self) -> "tuple[Workers, float]":
        """Fewer workers in whose line a job moves as it does here, and how many times fewer."""
        if self.number <= _MAX_WORKERS:
            return self, 1.0
        factor = self.number / _MAX_WORKERS
        ages, busy = sorted(self.ages_seconds), round(len(self.ages_seconds) / factor)
        chosen = tuple(ages[int((place + 0.5) * len(ages) / busy)] for place in range(busy))
        return Workers(number=_MAX_WORKERS, ages_seconds=chosen), factor


class _Lengths:
    """What is known of how long jobs take."""

    def __init__(self, durations: Sequence[float]) -> None:
        self.known = sorted(durations)
        number = len(self.known)
        mean = sum(self.known) / number
        variance = sum((length - mean) ** 2 for length in self.known) / (number - 1)
        # How much longer than any known a job is that is longer.
        self.excess = math.sqrt(variance)
        # How far off the mean of so few may be, as a share of it.
        self.doubt = math.sqrt(variance / number) / mean if mean else 0.0

    def rest(self, age: float, mean_so_far: float, dice: random.Random) -> float:
        """How much longer a job of this age takes."""
        first_longer = bisect_right(self.known, age)
        longer = len(self.known) - first_longer
        chosen = int(dice.random() * (longer + 1))
        if chosen < longer:
            return self.known[first_longer + chosen] - age
        if longer:
            return self.known[-1] - age + dice.expovariate(1) * self.excess
        return dice.expovariate(1) * max(age, mean_so_far)


def forecast(durations: Sequence[float], workers: Workers, ahead: int) -> Wait | None:
    """How long a job waits; None where too little is known.

    Args:
        durations: How many seconds each of the last jobs took.
        workers: Who works, and since when.
        ahead: How many jobs are claimed before this one.
    """
    enough = min(max(_LEAST_HISTORY, 2 * len(workers.ages_seconds)), _ENOUGH_HISTORY)
    if len(durations) < enough or workers.number < 1:
        return None
    lengths = _Lengths(durations)
    scaled, factor = workers.scaled()
    dice = random.Random(len(durations))  # noqa: S311 - the same question has the same answer
    starts = sorted(_play(lengths, scaled, round(ahead / factor), dice) for _ in range(_SCENARIOS))
    earliest, likely, latest = (starts[int(share * _SCENARIOS)] for share in (_EARLIEST, 0.5, _LATEST))
    return Wait(
        earliest_seconds=max(0.0, earliest * (1 - _SLACK_SHARE) - _SLACK_SECONDS),
        likely_seconds=likely,
        latest_seconds=latest * (1 + _SLACK_SHARE) + _SLACK_SECONDS,
    )


def longer_of(one: Wait | None, other: Wait | None) -> Wait | None:
    """The wait for two things that both have to come; None where one is not known."""
    if one is None or other is None:
        return None
    return Wait(
        earliest_seconds=max(one.earliest_seconds, other.earliest_seconds),
        likely_seconds=max(one.likely_seconds, other.likely_seconds),
        latest_seconds=max(one.latest_seconds, other.latest_seconds),
    )


def _play(lengths: _Lengths, workers: Workers, ahead: int, dice: random.Random) -> float:
    """When our job starts in one scenario."""
    scale = math.exp(dice.gauss(0, lengths.doubt))  # of all lengths here: the ages are put in their measure
    ages = [age / scale for age in workers.ages_seconds]
    # With what those that still run have taken so far: all that is known of one older than any known.
    mean_so_far = (sum(lengths.known) + sum(ages)) / len(lengths.known)
    rests = [lengths.rest(age, mean_so_far, dice) for age in ages]
    # What runs now, and is not among the ended ones because it is long, tells of those to come as well.
    drawn = lengths.known + [age + rest for age, rest in zip(ages, rests, strict=True)]
    free_at = [0.0] * (workers.number - len(rests)) + rests
    heapq.heapify(free_at)
    rounds = max(0, ahead - _PLAYED) // workers.number
    for _ in range(ahead - rounds * workers.number):
        chosen = int(dice.random() * (len(drawn) + 1))
        length = drawn[chosen] if chosen < len(drawn) else max(drawn) + dice.expovariate(1) * lengths.excess
        heapq.heapreplace(free_at, free_at[0] + length)
    return scale * (free_at[0] + (_sum(drawn, rounds, workers.number, dice) if rounds else 0.0))


def _sum(drawn: Sequence[float], rounds: int, workers: int, dice: random.Random) -> float:
    """How long so many rounds of jobs take, one after the other, where each worker takes part in each."""
    mean = sum(drawn) / len(drawn)
    variance = sum((length - mean) ** 2 for length in drawn) / len(drawn)
    return max(0.0, dice.gauss(rounds * mean, math.sqrt(rounds * variance / workers)))
