"""Containers: how much later than by hand a deployed image answers, and how long a rebuilt one takes to be served.

The engine at DOCKER_HOST does the same work for both sides, by turns.
"""

import sys

# The folder of this file holds `queue.py`, and the standard library's module of that name must come first.
sys.path.append(sys.path.pop(0))

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from harness.command import main
from harness.machine import describe
from harness.platform import Platform
from harness.report import Row, rows_table
from runtime_measures import rebuild, start

PACKAGES = ["machineshop", "jig-together", "aiohttp"]


@dataclass(frozen=True)
class Scale:
    """How much is measured: turns of each side."""

    rounds: int


FULL = Scale(rounds=5)
QUICK = Scale(rounds=1)

MEASURES: dict[str, Callable[[Platform, Path, int], list[Row]]] = {"start": start.measure, "rebuild": rebuild.measure}


def scale_of(quick: bool, rounds: int) -> Scale:
    return QUICK if quick else replace(FULL, rounds=rounds)


def run(scale: Scale, measures: Sequence[str]) -> list[Row]:
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="runtime-benchmark-")))
        print(describe(PACKAGES, folder), flush=True)
        platform = Platform(folder, runtime="docker")
        cleanup.callback(platform.stop)
        platform.wait_until_ready()
        rows = [row for name in measures for row in MEASURES[name](platform, folder, scale.rounds)]
    print(f"\nMedians of {scale.rounds} rounds, ours / peer:\n{rows_table(rows)}")
    return rows


if __name__ == "__main__":
    sys.exit(main("runtime", __doc__, MEASURES, FULL.rounds, scale_of, run))
