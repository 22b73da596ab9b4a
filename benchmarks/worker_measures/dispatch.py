"""From submit to the start of predict, with the model in a thread of the worker and in a process of its own."""

import statistics

from harness.report import Row
from harness.turns import in_turns
from queue_measures.dispatch import turn
from queue_systems.machineshop_http import Machineshop

# What a process of its own may add to the median, in milliseconds.
PROCESS_BAR_MS = 1.0


def measure(thread: Machineshop, process: Machineshop, rounds: int, jobs: int) -> list[Row]:
    """The medians beside one another, and what the process adds, which has the bar.

    Args:
        thread: with the model in a thread.
        process: with the model in a process.
        rounds: how often each has its turn.
        jobs: of a turn.
    """
    print("\nSubmit to start, idle worker, the model in a thread and in a process of its own:")
    results = in_turns([thread, process], rounds, lambda system: turn(system, jobs), str)
    p50 = {name: statistics.median(each.start_ms(50) for each in turns) for name, turns in results.items()}
    added = p50[process.name] - p50[thread.name]
    return [
        Row("start_p50", "ms", "lower", process.name, p50[process.name], thread.name, p50[thread.name]),
        Row("start_added", "ms", "lower", process.name, added, bar=PROCESS_BAR_MS),
    ]
