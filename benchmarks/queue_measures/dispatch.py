"""How long an idle worker waits for its job: from the client's submit call to the start of predict.

The clock is CLOCK_MONOTONIC, which all processes of a machine share: the client reads it just before its call, the
worker in the job's first statement, and returns it as the result. So nothing is estimated or subtracted.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report import Row, percentile
from harness.turns import in_turns
from queue_systems.base import PromptSystem, Slots, Timing
from queue_systems.celery_redis import CeleryRedis

# Beside Celery's p50.
START_P50_BAR = 0.6
# Our p99 beside our own p50.
START_P99_BAR = 3.0
WARM_UP_JOBS = 20
# Between a result and the next submit: every process has gone to sleep before the job comes, as for a lone user.
GAP_SECONDS = 0.02


@dataclass(frozen=True)
class Dispatch:
    """One turn: the timings of its jobs."""

    timings: list[Timing]

    def start_ms(self, percent: float) -> float:
        """A percentile of submit to start."""
        return percentile([timing.start_ms for timing in self.timings], percent)

    def __str__(self) -> str:
        acknowledged = percentile([timing.acknowledge_ms for timing in self.timings], 50)
        result = percentile([timing.result_ms for timing in self.timings], 50)
        return (
            f"start {self.start_ms(50):.2f} ms (p99 {self.start_ms(99):.2f} ms), "
            f"acknowledged {acknowledged:.2f} ms, result {result:.2f} ms"
        )


def measure(ours: Sequence[PromptSystem], peers: Sequence[PromptSystem], rounds: int, jobs: int) -> list[Row]:
    """The start's p50 beside the peers', and our p99 beside our p50; the bars are about the first of ours.

    Args:
        ours: on the embedded store, and on others.
        peers: the other systems.
        rounds: how often each has its turn.
        jobs: of a turn.
    """
    print(f"\nSubmit to start, idle worker, one job after another with {GAP_SECONDS * 1e3:.0f} ms between them:")
    results = in_turns([*ours, *peers], rounds, lambda system: turn(system, jobs), str)
    p50, p99 = (
        {name: statistics.median(turn.start_ms(percent) for turn in turns) for name, turns in results.items()}
        for percent in (50, 99)
    )
    rows = []
    for system in ours:
        barred = system is ours[0]
        for peer in peers:
            bar = START_P50_BAR if barred and peer.name == CeleryRedis.name else None
            rows.append(Row("start_p50", "ms", "lower", system.name, p50[system.name], peer.name, p50[peer.name], bar))
        bar = START_P99_BAR if barred else None
        rows.append(Row("start_p99", "ms", "lower", system.name, p99[system.name], "its p50", p50[system.name], bar))
    return rows


def turn(system: PromptSystem, jobs: int) -> Dispatch:
    """One turn of a system."""
    try:
        system.start(Slots.ONE)
        timings = []
        for _ in range(WARM_UP_JOBS + jobs):
            time.sleep(GAP_SECONDS)
            timings.append(system.run_job())
        return Dispatch(timings[WARM_UP_JOBS:])
    finally:
        system.stop()
