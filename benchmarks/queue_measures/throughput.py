"""End to end: so many jobs submitted, worked on by one process, and their results read back; batches allowed."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from harness.memory import resident_mib
from harness.report import Row, number, table
from harness.turns import in_turns
from queue_systems.base import SinglySystem, Slots, System

# Ours on its embedded store beside the fastest of the peers.
BEST_BAR = 2.0
# Ours beside the durable peer.
SINGLY_BAR = 3.0
WARM_UP_JOBS = {Slots.MANY: 500, Slots.ONE: 100}
MOST_JOBS = 40_000


@dataclass(frozen=True)
class Throughput:
    """One turn.

    Args:
        jobs: how many were worked on.
        seconds: from before the first submit to the last result in hand.
        memory_mib: of each part, right after.
    """

    jobs: int
    seconds: float
    memory_mib: dict[str, float]

    @property
    def jobs_per_second(self) -> float:
        """The speed."""
        return self.jobs / self.seconds

    def __str__(self) -> str:
        memory = ", ".join(f"{part} {mib:.0f} MiB" for part, mib in self.memory_mib.items())
        return f"{self.jobs_per_second:6,.0f} jobs/s  ({self.jobs:,} in {self.seconds:.1f} s; {memory})"


def measure_batched(ours: Sequence[System], peers: Sequence[System], rounds: int, seconds: float) -> list[Row]:
    """Many jobs at once, each system as fast as it gets.

    Args:
        ours: on the embedded store, which the bar is about, and on others.
        peers: the other systems.
        rounds: how often each has its turn.
        seconds: about how long a turn is to take.
    """
    print("\nEnd to end, one worker process, batches allowed:")
    results = in_turns([*ours, *peers], rounds, lambda system: _turn(system, Slots.MANY, system.run_many, seconds), str)
    speeds = _medians(results)
    print(f"\nMemory in MiB, medians:\n{_memory_table(results)}")
    best = max((peer.name for peer in peers), key=speeds.__getitem__)
    return [
        Row(
            name="end_to_end",
            unit="jobs/s",
            better="higher",
            ours_name=system.name,
            ours=speeds[system.name],
            peer_name=peer.name,
            peer=speeds[peer.name],
            bar=BEST_BAR if system is ours[0] and peer.name == best else None,
        )
        for system in ours
        for peer in peers
    ]


def measure_singly(ours: Sequence[SinglySystem], peer: SinglySystem, rounds: int, seconds: float) -> list[Row]:
    """One by one: a call for each submit and each result, a worker that does one job at a time; as above else."""
    print("\nOne by one, a call for each submit, one job at a time:")
    results = in_turns([*ours, peer], rounds, lambda system: _turn(system, Slots.ONE, system.run_singly, seconds), str)
    speeds = _medians(results)
    return [
        Row(
            name="one_by_one",
            unit="jobs/s",
            better="higher",
            ours_name=system.name,
            ours=speeds[system.name],
            peer_name=peer.name,
            peer=speeds[peer.name],
            bar=SINGLY_BAR if system is ours[0] else None,
        )
        for system in ours
    ]


def _turn(system: System, slots: Slots, run: Callable[[int], None], seconds: float) -> Throughput:
    """Warm up, which also tells how many jobs take the time that is wanted, then measure."""
    try:
        system.start(slots)
        warm_up = WARM_UP_JOBS[slots]
        jobs = min(MOST_JOBS, max(warm_up, int(seconds * warm_up / _seconds(run, warm_up))))
        taken = _seconds(run, jobs)
        memory = {part: resident_mib(processes) for part, processes in system.parts().items()}
        return Throughput(jobs, taken, memory)
    finally:
        system.stop()


def _seconds(run: Callable[[int], None], jobs: int) -> float:
    began = time.monotonic()
    run(jobs)
    return time.monotonic() - began


def _medians(results: Mapping[str, Sequence[Throughput]]) -> dict[str, float]:
    return {name: statistics.median(turn.jobs_per_second for turn in turns) for name, turns in results.items()}


def _memory_table(results: Mapping[str, Sequence[Throughput]]) -> str:
    """A line for each system; the last column is all of it."""
    lines = [["system", "parts", "in all"]]
    for name, turns in results.items():
        parts = {part: statistics.median(turn.memory_mib[part] for turn in turns) for part in turns[0].memory_mib}
        shown = ", ".join(f"{part} {number(mib)}" for part, mib in parts.items())
        lines.append([name, shown, number(sum(parts.values()))])
    return table(lines)
