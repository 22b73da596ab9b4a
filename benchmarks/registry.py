"""The registry beside CNCF distribution, on the same disk: a large blob with curl, images with skopeo, and the memory.

Both are started here, anew for each turn.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import BenchmarkError
from harness.machine import describe
from harness.processes import interrupt_on_signals
from harness.report import Row, rows_table, write_json
from registry_measures import blobs, images
from registry_measures.layout import make_layout, random_file
from registry_systems.distribution import Distribution
from registry_systems.machineshop_registry import MachineshopRegistry

MEASURES = ["curl", "large", "many"]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        rounds: turns of each registry.
        large_mib: of the one blob, and of the one layer.
        layers: of 1 MiB each.
    """

    rounds: int
    large_mib: int
    layers: int


FULL = Scale(rounds=3, large_mib=1024, layers=200)
# To see that everything runs: the numbers of so little say nothing.
QUICK = Scale(rounds=1, large_mib=32, layers=10)


def main() -> int:
    options = read_options()
    interrupt_on_signals()
    try:
        scale = QUICK if options.quick else replace(FULL, rounds=options.rounds)
        rows = run(scale, options.only)
    except BenchmarkError as error:
        print(f"registry: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("registry: interrupted; everything that it started has been stopped", file=sys.stderr)
        return 130
    if options.json:
        write_json(options.json, rows)
    return 0 if options.quick or all(row.passes for row in rows) else 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows there as well")
    parser.add_argument("--quick", action="store_true", help="a little of everything; no bar fails it")
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="turns of each registry (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=MEASURES, help="these measures alone")
    return parser.parse_args()


def run(scale: Scale, measures: Sequence[str]) -> list[Row]:
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="registry-benchmark-")))
        print(describe(["machineshop", "uvicorn", "uvloop"], folder), flush=True)
        ours, peer = MachineshopRegistry(folder), Distribution(folder)
        for registry in (ours, peer):
            cleanup.callback(registry.take_down)
        rows: list[Row] = []
        if "curl" in measures:
            content = folder / "blob"
            digest = random_file(content, scale.large_mib)
            rows += blobs.measure(ours, peer, scale.rounds, content, digest)
            content.unlink()
        for measure, layers, mib_each in (("large", 1, scale.large_mib), ("many", scale.layers, 1)):
            if measure in measures:
                layout = make_layout(folder / measure, layers, mib_each)
                name = f"{layers} x {mib_each} MiB"
                rows += images.measure(ours, peer, scale.rounds, layout, name, layers * mib_each)
                shutil.rmtree(layout)
    print(f"\nMedians of {scale.rounds} rounds, ours / peer:\n{rows_table(rows)}")
    return rows


if __name__ == "__main__":
    sys.exit(main())
