"""What the loop in `local.py` needs of the thing that runs replicas on this machine: processes, or containers.

Place in the flow: an engine does, it decides nothing. When to start, stop and restart is the planner's matter, and what
a replica's state is called is `replica.py`'s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from machineshop.errors import MachineshopError
from machineshop.runtime.base import ArtifactKind, Capacity, LogLine, RevisionSpec
from machineshop.runtime.exits import Exit
from machineshop.runtime.health import Probe
from machineshop.runtime.record import Record


class PreparationFailed(MachineshopError):
    """{message}"""

    def __init__(self, reason: str, message: str, *, final: bool = False) -> None:
        self.reason = reason
        self.final = final
        """Waiting mends nothing: whoever was asked answers that there is no such thing."""
        super().__init__(message=message)


class Mount(NamedTuple):
    """A folder of this machine that a replica sees, and cannot change."""

    folder: Path
    path: str
    """Where it sees it."""


class ReplicaLog(Protocol):
    """A reader of what one replica prints; it keeps its place."""

    def read_last(self, count: int | None) -> list[LogLine]:
        """The last `count` lines there are (None: all), oldest first; the place is then the end."""
        ...

    def read_new(self) -> list[LogLine]:
        """The next lines, oldest first, a limited number at a time; empty when there is nothing new."""
        ...


class Engine(Protocol):
    """Runs replicas on this machine. `record.runs` numbers a replica's runs; a call is about the present one."""

    name: str
    accepts: frozenset[ArtifactKind]

    async def open(self) -> list[Record]:
        """Check the machine and find the replicas of earlier, running or not.

        Their `spec.environment` is empty: what may hold secrets is not written down.

        Raises:
            RuntimeUnavailable: The machine lacks something that the engine needs.
        """
        ...

    def capacity(self) -> Capacity:
        """What this machine has in all."""
        ...

    def gpus(self) -> tuple[int, ...]:
        """The indices of the GPUs that replicas may use."""
        ...

    def free_port(self, taken: frozenset[int]) -> int:
        """A port for a replica to listen on, none of `taken`."""
        ...

    def platform_url(self, spec: RevisionSpec) -> str:
        """The address at which replicas of this revision that start now reach the platform."""
        ...

    async def pin(self, image: str) -> str:
        """An image that the platform's registry does not know, with its digest where the engine has it."""
        ...

    async def prefetch(self, project_id: str, image: str) -> None:
        """Bring an image to this machine before it is needed.

        Raises:
            PreparationFailed: It cannot be had.
        """
        ...

    def doing(self, spec: RevisionSpec) -> str:
        """What `prepare` does for this revision just now, in a sentence."""
        ...

    async def prepare(self, spec: RevisionSpec) -> None:
        """Bring the artifact to this machine, ready to run; quick when it is there already.

        Raises:
            PreparationFailed: It cannot be had or made ready; the reason and the message say why.
        """
        ...

    async def launch(self, record: Record, spec: RevisionSpec, key: str, mounts: Sequence[Mount]) -> None:
        """Start the replica's process with this worker key; it is told `record.platform_url`.

        Raises:
            PreparationFailed: Its artifact is no longer there, or `mounts` cannot be had.
            OSError: The machine refused.
        """
        ...

    async def wait(self, record: Record) -> Exit:
        """Wait until the present run is over, however it ended; at once if it already is. May be cancelled."""
        ...

    async def probe(self, record: Record) -> Probe:
        """Ask the replica's health check once."""
        ...

    def terminate(self, record: Record) -> None:
        """Ask the process to finish and end; asked again, it is to let go of what it has in hand and end at once.

        The engine itself sees to it that it does not outlive the grace period it was started with.
        """
        ...

    def kill(self, record: Record) -> None:
        """End the process and everything it started, now. May be called again."""
        ...

    def save(self, record: Record) -> None:
        """Keep the record for the next `open`."""
        ...

    def forget(self, record: Record) -> None:
        """Remove the record of a replica that has ended, with its log."""
        ...

    def log(self, replica_id: str) -> ReplicaLog:
        """A reader of the replica's log, at its beginning."""
        ...

    async def close(self) -> None:
        """Look away; what runs goes on running."""
        ...
