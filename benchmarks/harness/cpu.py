"""How much of a processor processes have used."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# In /proc/PID/stat, counted from the state, which follows the name and its closing bracket.
USER_TICKS, SYSTEM_TICKS = 11, 12


def cpu_seconds(processes: Sequence[int]) -> float:
    """User and system time of these processes, their threads included, since each of them started."""
    ticks = 0
    for process in processes:
        with contextlib.suppress(OSError):  # it has ended
            fields = (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])
    return ticks / TICKS_PER_SECOND
