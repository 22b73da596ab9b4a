"""Scaling: from no replica to a result beside the worker's own start; one server's loops over thousands of replicas.

Everything is started here. The worker does nothing: what is measured is what the platform adds to its start.
"""

import sys

# The folder of this file holds `queue.py`, and the standard library's module of that name must come first.
sys.path.append(sys.path.pop(0))

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.command import main
from harness.machine import describe
from harness.report import Row, rows_table
from scaling_measures import from_zero, many

PACKAGES = ["machineshop", "sprocket"]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        rounds: starts from zero, and of the worker alone.
        deployments: in the measure of many.
        replicas: of all of them together.
    """

    rounds: int
    deployments: int
    replicas: int


FULL = Scale(rounds=5, deployments=1000, replicas=5000)
# To see that everything runs: the numbers of so little say nothing.
QUICK = Scale(rounds=1, deployments=50, replicas=250)

MEASURES: dict[str, Callable[[Path, Scale], list[Row]]] = {
    "zero": lambda folder, scale: from_zero.measure(folder, scale.rounds),
    "many": lambda folder, scale: many.measure(folder, scale.deployments, scale.replicas),
}


def scale_of(quick: bool, rounds: int) -> Scale:
    return QUICK if quick else replace(FULL, rounds=rounds)


def run(scale: Scale, measures: Sequence[str]) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="scaling-benchmark-") as name:
        print(describe(PACKAGES, Path(name)), flush=True)
        rows = [row for measure in measures for row in MEASURES[measure](Path(name), scale)]
    print(f"\nMedians, ours / peer:\n{rows_table(rows)}")
    return rows


if __name__ == "__main__":
    sys.exit(main("scaling", __doc__, MEASURES, FULL.rounds, scale_of, run))
