"""How much memory processes hold."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

KIB_PER_MIB = 1024


def resident_mib(processes: Sequence[int]) -> float:
    """The resident memory of one process, or of several together with what they share counted once, in MiB."""
    if len(processes) == 1:
        return _field(processes[0], "status", "VmRSS:")
    return sum(_field(process, "smaps_rollup", "Pss:") for process in processes)


def peak_mib(process: int) -> float:
    """The most resident memory that a process has ever held, in MiB."""
    return _field(process, "status", "VmHWM:")


def _field(process: int, file: str, name: str) -> float:
    with contextlib.suppress(OSError):  # it has ended
        for line in (Path("/proc") / str(process) / file).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / KIB_PER_MIB
    return 0.0
