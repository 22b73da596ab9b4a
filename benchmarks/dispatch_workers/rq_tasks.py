"""The job that RQ runs."""

import time


def stamp(_sent: dict[str, object]) -> int:
    """When this job started, in nanoseconds of CLOCK_MONOTONIC."""
    return time.monotonic_ns()
