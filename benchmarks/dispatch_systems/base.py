"""What a system must do to be measured: run with an idle worker, take one job, show its result."""

from dataclasses import dataclass
from typing import Protocol

# A job that takes longer than this is lost, and the benchmark with it.
RESULT_LIMIT_SECONDS = 20.0


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
    """A queue with one worker that has nothing else to do."""

    name: str
    set_up: str
    guarantee: str

    def start(self) -> None:
        """Bring up server, worker and a warm client.

        Raises:
            BenchmarkError: a part of it does not come up.
        """

    def run_job(self) -> Timing:
        """Submit one job and wait for its result.

        Raises:
            BenchmarkError: the result is not there within `RESULT_LIMIT_SECONDS`.
        """

    def stop(self) -> None:
        """End what `start` started, also when that was only a part of it."""
