"""What the numbers depend on beside the programs: the machine, its load, its disk, and whose versions ran."""

import os
import platform
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from harness.report import number, percentile

WRITES = 50
PAGE = b"x" * 4096


def describe(packages: Sequence[str], folder: Path) -> str:
    """A line on the machine, and one on the versions of these packages.

    Args:
        packages: names of installed distributions.
        folder: on the disk that is going to be used.
    """
    cores, load = os.cpu_count(), os.getloadavg()[0]
    machine = f"{cores} cores, load {load:.1f} before the run, a page on disk in {number(_sync_ms(folder))} ms (median)"
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    python = platform.python_version()
    return f"Machine: {machine}\nVersions: Python {python}, SQLite {sqlite3.sqlite_version}, {versions}"


def _sync_ms(folder: Path) -> float:
    """How long an appended page takes to be on disk, which every durable answer waits for."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(WRITES):
            file.write(PAGE)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - began) * 1e3)
    return percentile(taken, 50)
