"""curl and skopeo, run to their end and timed."""

import subprocess
import time
from collections.abc import Sequence

from harness.errors import BenchmarkError

LIMIT_SECONDS = 180.0


def run(argv: Sequence[object], stdin: str | None = None) -> tuple[str, float]:
    """What a command prints, and how many seconds it took.

    Raises:
        BenchmarkError: it failed, or did not end.
    """
    began = time.perf_counter()
    try:
        finished = subprocess.run(
            [str(each) for each in argv],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise BenchmarkError(f"{argv[0]} is not installed: apt-get install {argv[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{argv[0]} did not end within {LIMIT_SECONDS:.0f} s.") from error
    seconds = time.perf_counter() - began
    if finished.returncode != 0:
        raise BenchmarkError(f"{argv[0]} ended with {finished.returncode}:\n{finished.stderr}")
    return finished.stdout, seconds
