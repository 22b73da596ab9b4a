"""What a worker costs: the processor time that its process uses for each job, beyond calling predict in a loop.

The jobs do nothing, and there are always more of them. What counts is the worker's process alone, with
the children that it has: servers and clients have their own.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.cpu import cpu_seconds
from harness.report import Row
from harness.turns import in_turns
from queue_systems.base import DOCUMENT, Slots, System

# Beside the cheaper of the peers.
COST_BAR = 0.6
WARM_UP_JOBS = 300
MOST_JOBS = 30_000
LOOP_CALLS = 200_000


@dataclass(frozen=True)
class Cost:
    """One turn.

    Args:
        jobs: how many were worked on.
        cpu_us: the worker's processor time for each, in microseconds.
        seconds: from before the first submit to the last result in hand.
    """

    jobs: int
    cpu_us: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.cpu_us:6.0f} us of CPU a job  ({self.jobs:,} jobs, {self.jobs / self.seconds:,.0f} a second)"


def measure(
    ours: Sequence[System], peers: Sequence[System], name: str, slots: Slots, rounds: int, seconds: float
) -> list[Row]:
    """Rows of the worker's cost beside each peer's; the bar is about the first of ours and the cheapest peer.

    Args:
        ours: workers of ours.
        peers: the others.
        name: of the rows.
        slots: how the workers are set up.
        rounds: how often each has its turn.
        seconds: about how long a turn is to take.
    """
    print(f"\n{name}: the worker's processor time for a job that does nothing, over a loop's {loop_us():.2f} us:")
    results = in_turns([*ours, *peers], rounds, lambda system: _turn(system, slots, seconds), str)
    costs = {system: statistics.median(turn.cpu_us for turn in turns) - loop_us() for system, turns in results.items()}
    cheapest = min((peer.name for peer in peers), key=costs.__getitem__)
    return [
        Row(
            name=name,
            unit="us/job",
            better="lower",
            ours_name=system.name,
            ours=costs[system.name],
            peer_name=peer.name,
            peer=costs[peer.name],
            bar=COST_BAR if system is ours[0] and peer.name == cheapest else None,
        )
        for system in ours
        for peer in peers
    ]


def loop_us() -> float:
    """What a call of predict costs in a loop."""
    began = time.process_time()
    for _ in range(LOOP_CALLS):
        _predict(DOCUMENT)
    return (time.process_time() - began) / LOOP_CALLS * 1e6


def _predict(args: dict[str, str]) -> dict[str, object]:
    return {"started_ns": time.monotonic_ns(), **args}


def _turn(system: System, slots: Slots, seconds: float) -> Cost:
    try:
        system.start(slots)
        began = time.monotonic()
        system.run_many(WARM_UP_JOBS)
        jobs = min(MOST_JOBS, max(WARM_UP_JOBS, int(seconds * WARM_UP_JOBS / (time.monotonic() - began))))
        worker = system.parts()["worker"]
        used, began = cpu_seconds(worker), time.monotonic()
        system.run_many(jobs)
        taken = time.monotonic() - began
        return Cost(jobs, (cpu_seconds(worker) - used) / jobs * 1e6, taken)
    finally:
        system.stop()
