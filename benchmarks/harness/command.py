"""The command line that every benchmark has: which measures, how often, where to, and what its exit code says."""

import argparse
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from harness.errors import BenchmarkError
from harness.processes import interrupt_on_signals
from harness.report import Row, write_json

Scale = TypeVar("Scale")


def main(
    name: str,
    description: str | None,
    measures: Collection[str],
    rounds: int,
    scale: Callable[[bool, int], Scale],
    run: Callable[[Scale, list[str]], list[Row]],
) -> int:
    """Run a benchmark as its command line says.

    Args:
        name: what its messages begin with.
        description: its module's docstring.
        measures: the names of all that it can measure.
        rounds: how often, unless it is told otherwise.
        scale: how much to measure: whether a little of everything is enough, and how often.
        run: measures so much of these.

    Returns:
        The exit code: 0, 1 where a bar is missed, 2 where it could not run, 130 where it was interrupted.
    """
    options = _read_options(description, measures, rounds)
    interrupt_on_signals()
    try:
        rows = run(scale(options.quick, options.rounds), options.only)
    except BenchmarkError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted; everything that it started has been stopped", file=sys.stderr)
        return 130
    if options.json:
        write_json(options.json, rows)
    return 0 if options.quick or all(row.passes for row in rows) else 1


def _read_options(description: str | None, measures: Collection[str], rounds: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows there as well")
    parser.add_argument("--quick", action="store_true", help="a little of everything; no bar fails it")
    parser.add_argument("--rounds", type=int, default=rounds, help="turns of each system (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=measures, default=list(measures), help="these measures alone")
    return parser.parse_args()
