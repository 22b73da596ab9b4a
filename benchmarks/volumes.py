"""Volumes beside `cp -r` on the same disk, and of a large file rclone over WebDAV: the time, and the memory.

Each starts anew for each turn, with nothing in it; all bytes are on disk before a turn is over.
"""

import os
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
from volumes_measures.command import run as run_command
from volumes_measures.folders import measure
from volumes_systems.base import Store
from volumes_systems.copying import Copying
from volumes_systems.machineshop_volumes import MachineshopVolumes
from volumes_systems.rclone_webdav import RcloneWebdav

MEASURES = ["large", "small"]
MIB = 1024 * 1024
SMALL_BYTES = 10 * 1024
FILES_PER_FOLDER = 100


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Args:
        rounds: turns of each system.
        large_mib: of the one file.
        small_files: how many there are of 10 KiB.
    """

    rounds: int
    large_mib: int
    small_files: int


FULL = Scale(rounds=3, large_mib=2048, small_files=10_000)
# To see that everything runs: the numbers of so little say nothing.
QUICK = Scale(rounds=1, large_mib=160, small_files=200)


def scale_of(quick: bool, rounds: int) -> Scale:
    return QUICK if quick else replace(FULL, rounds=rounds)


def run(scale: Scale, measures: Sequence[str]) -> list[Row]:
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="volumes-benchmark-")))
        print(describe(["machineshop", "jig-together", "uvicorn", "uvloop", "httpx"], folder), flush=True)
        ours, copying, rclone = MachineshopVolumes(folder), Copying(folder), RcloneWebdav(folder)
        systems: list[Store] = [ours, copying, rclone]
        for system in systems:
            cleanup.callback(system.take_down)
        _, baseline_mib = run_command([Path(sys.executable).parent / "jig", "volumes", "create", "--help"], folder)
        rows: list[Row] = []
        if "large" in measures:
            source = folder / "large"
            write(source / "model.bin", scale.large_mib * MIB)
            rows += measure(systems, scale.rounds, f"1 x {scale.large_mib:,} MiB", source, baseline_mib)
            shutil.rmtree(source)
        if "small" in measures:
            source = folder / "small"
            for number in range(scale.small_files):
                write(source / f"{number // FILES_PER_FOLDER:03}" / f"{number:05}.bin", SMALL_BYTES)
            # rclone's WebDAV takes minutes for as many: nothing to be compared with.
            rows += measure([ours, copying], scale.rounds, f"{scale.small_files:,} x 10 KiB", source, baseline_mib)
    print(f"\nMedians of {scale.rounds} rounds, ours / peer:\n{rows_table(rows)}")
    return rows


def write(place: Path, count_bytes: int) -> None:
    """A file of random bytes, which nothing makes smaller."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as file:
        for start in range(0, count_bytes, MIB):
            file.write(os.urandom(min(MIB, count_bytes - start)))


if __name__ == "__main__":
    sys.exit(main("volumes", __doc__, MEASURES, FULL.rounds, scale_of, run))
