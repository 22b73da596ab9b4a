"""What a job took: seconds of each step, and the peak memory of the process that its model lives in.

It goes with every result.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

INFO_KEY = "sprocket"
"""Under which the measures are in a job's info."""

PREDICT = "predict"
WORTH_TELLING_SECONDS = 0.001
"""Of steps that most jobs have nothing to do in."""

_NOTHING: Mapping[str, int] = {}

FRESH_SECONDS = 0.1
"""For how long the last answer is good."""


class Measures:
    """What one job has taken so far.

    Attributes:
        memory: of the model's process, where that is another one; see `peak_memory`.
    """

    __slots__ = ("_seconds", "memory")

    def __init__(self) -> None:
        self.memory: Mapping[str, int] = _NOTHING
        self._seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step for the time of a block."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started_at)

    def add(self, name: str, seconds: float) -> None:
        """Note how long a step took."""
        self._seconds[name] = seconds

    def info(self) -> dict[str, Any]:
        """Give what is to be told of it; empty for a job that never began."""
        if not self._seconds:
            return {}
        steps = self._seconds.items()
        told = [(name, taken) for name, taken in steps if name == PREDICT or taken >= WORTH_TELLING_SECONDS]
        seconds = {f"{name}_seconds": round(taken, 6) for name, taken in told}
        return {INFO_KEY: {**seconds, **(self.memory or _memory.lately())}}


class _PeakMemory:
    """What `peak_memory` said last. To ask costs as much as a small job's result does in all."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}
        self._said_at = float("-inf")

    def lately(self) -> dict[str, int]:
        """Give what it was within the last tenth of a second."""
        now = time.monotonic()
        if now - self._said_at > FRESH_SECONDS:
            self._said, self._said_at = peak_memory(), now
        return self._said


def peak_memory() -> dict[str, int]:
    """Give the most memory that this process has had at a time, in bytes.

    `vram_peak_bytes` is what torch has held of all GPUs, where the model has set it to work on one.
    """
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    memory = {"ram_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes}
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and cuda.is_initialized():
        memory["vram_peak_bytes"] = sum(cuda.max_memory_allocated(gpu) for gpu in range(cuda.device_count()))
    return memory


_memory = _PeakMemory()
