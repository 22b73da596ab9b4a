"""The registry beside CNCF distribution, on the same disk: a large blob with curl, images with skopeo, and the memory.

Both are started here, anew for each turn.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from harness.command import main
from harness.machine import describe
from harness.report import Row, rows_table
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


def scale_of(quick: bool, rounds: int) -> Scale:
    return QUICK if quick else replace(FULL, rounds=rounds)


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
    sys.exit(main("registry", __doc__, MEASURES, FULL.rounds, scale_of, run))
