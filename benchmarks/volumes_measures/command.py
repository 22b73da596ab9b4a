"""A client, run to its end, timed, and with the most memory that it ever held."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import BenchmarkError
from harness.memory import KIB_PER_MIB
from harness.processes import child_environment

LIMIT_SECONDS = 600.0
POLL_SECONDS = 0.02
SHOWN_CHARACTERS = 2000


def run(
    argv: Sequence[object], folder: Path, environment: Mapping[str, str | None] | None = None
) -> tuple[float, float]:
    """How many seconds a command took, and its peak of resident memory in MiB.

    Args:
        argv: the command line; it must hold no secret.
        folder: where it runs, and where its output goes for a message.
        environment: as in `child_environment`.

    Raises:
        BenchmarkError: it failed, or did not end.
    """
    log = folder / "command.log"
    began = time.perf_counter()
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                [str(each) for each in argv],
                cwd=folder,
                env=child_environment(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except FileNotFoundError as error:
            raise BenchmarkError(f"{argv[0]} is not installed: apt-get install {argv[0]}") from error
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)  # which tells the memory of this child alone
        if pid:
            break
        if time.perf_counter() - began > LIMIT_SECONDS:
            process.kill()
            process.wait()
            raise BenchmarkError(f"{argv[0]} did not end within {LIMIT_SECONDS:.0f} s.")
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        said = log.read_text(errors="replace")[-SHOWN_CHARACTERS:]
        raise BenchmarkError(f"{argv[0]} ended with {process.returncode}:\n{said}")
    return seconds, usage.ru_maxrss / KIB_PER_MIB


def synced() -> float:
    """Have everything that was written on disk; returns the seconds."""
    began = time.perf_counter()
    os.sync()
    return time.perf_counter() - began
