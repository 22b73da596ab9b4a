"""What a system must do to be measured, and the job that all of them are given."""

import importlib
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from harness.errors import BenchmarkError

# What the workers of all systems import.
WORKERS = Path(__file__).parent.parent / "queue_workers"
# 200 bytes of JSON, {"text":"..."}, and the result carries the same text back.
DOCUMENT = {"text": "x" * 189}
# Calls that a client has under way where jobs come singly: without waiting for one another, as from several users.
AT_ONCE = 10
# Jobs that are not done by then are lost, and the benchmark with them.
RESULT_LIMIT_SECONDS = 60.0


class Slots(StrEnum):
    """How a system's worker, which is one process, is set up."""

    MANY = "many"
    """As fast as it gets for a backlog of short jobs: the slots and the fetching ahead that gave the most."""
    ONE = "one"
    """One job at a time."""


@dataclass(frozen=True)
class Timing:
    """One job's moments, all of CLOCK_MONOTONIC, which the processes of one machine share.

    Args:
        submitted_ns: just before the client's submit call.
        acknowledged_ns: when that call had returned.
        started_ns: the job's first statement in the worker.
        seen_ns: when the client had the result in hand.
    """

    submitted_ns: int
    acknowledged_ns: int
    started_ns: int
    seen_ns: int

    @property
    def start_ms(self) -> float:
        """Submit to the start of predict."""
        return (self.started_ns - self.submitted_ns) / 1e6

    @property
    def acknowledge_ms(self) -> float:
        """Submit to its acknowledgement."""
        return (self.acknowledged_ns - self.submitted_ns) / 1e6

    @property
    def result_ms(self) -> float:
        """Submit to the result in the client's hand."""
        return (self.seen_ns - self.submitted_ns) / 1e6


class System(Protocol):
    """A queue with its server, one worker process and a client in this process."""

    name: str
    guarantee: str
    set_up: str

    def start(self, slots: Slots) -> None:
        """Bring up the worker, and a server where there is none; return once a first job has come back.

        Raises:
            BenchmarkError: a part of it does not come up.
        """

    def run_many(self, jobs: int) -> None:
        """Submit jobs, in batches where the system can, and read all their results back.

        Raises:
            BenchmarkError: a result is missing or wrong after `RESULT_LIMIT_SECONDS`.
        """

    def parts(self) -> dict[str, list[int]]:
        """The process ids of each of its parts, while it is started."""

    def stop(self) -> None:
        """End what `start` started, also when that was only a part of it."""


class SinglySystem(System, Protocol):
    """A system that is also measured one by one."""

    def run_singly(self, jobs: int) -> None:
        """Submit jobs in a call each, then read their results in a call each, `AT_ONCE` calls at a time.

        Raises as `run_many`.
        """


class PromptSystem(System, Protocol):
    """A system whose worker is also measured idle."""

    def run_job(self) -> Timing:
        """Submit one job and wait for its result. Raises as `run_many`."""


class Deadline:
    """The bound on one call of a system."""

    def __init__(self, name: str, seconds: float = RESULT_LIMIT_SECONDS) -> None:
        self._name, self._seconds = name, seconds
        self._at = time.monotonic() + seconds

    def check(self, missing: str) -> None:
        """Raise once the time is over.

        Raises:
            BenchmarkError: with what is missing.
        """
        if time.monotonic() > self._at:
            raise BenchmarkError(f"{self._name}: {missing} after {self._seconds:.0f} s.")


def check_outputs(name: str, outputs: Iterable[Any], jobs: int) -> None:
    """See that every job's result is there and carries the job's text.

    Raises:
        BenchmarkError: one is missing, or is another.
    """
    found = [output for output in outputs if output and output.get("text") == DOCUMENT["text"]]
    if len(found) != jobs:
        raise BenchmarkError(f"{name}: {len(found)} right results of {jobs} jobs.")


def client_module(name: str, url: str) -> Any:
    """The module that a system's worker runs, for its client: that is how a client knows the tasks."""
    os.environ["QUEUE_URL"] = url
    if str(WORKERS) not in sys.path:
        sys.path.append(str(WORKERS))
    return importlib.import_module(name)


def worker_environment(url: str) -> dict[str, str | None]:
    """What a worker needs to know."""
    return {"QUEUE_URL": url, "PYTHONPATH": str(WORKERS)}
