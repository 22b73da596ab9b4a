"""A runtime in memory, for the tests of everything above runtimes and for trying the platform without running code.

Planner, back-off, rollouts and states are the real ones: only what runs the replicas is played, by `FakeEngine`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from machineshop.runtime.base import ArtifactKind, Capacity, LogLine, ReplicaWatcher, RevisionSpec, VolumeVersion
from machineshop.runtime.engine import Mount, PreparationFailed
from machineshop.runtime.exits import Exit
from machineshop.runtime.health import Answer, Probe
from machineshop.runtime.local import LocalRuntime
from machineshop.runtime.record import Record
from machineshop.runtime.volumes.base import FAILED_MOUNT
from machineshop.runtime.volumes.trees import TreeKey

READ_LINES = 1000


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How the replicas of one revision behave."""

    start_seconds: float = 0.0
    """From the start of the process to its first healthy answer."""
    healthy: bool = True
    exit_code: int | None = None
    """Ends by itself with this code as soon as it has started."""
    ignores_terminate: bool = False
    has_job_in_hand: bool = False
    """Asked to end it goes on with its job; asked again it lets go of it and ends."""
    preparation_failure: str | None = None
    """The artifact cannot be made ready, with this message."""


class FakeEngine:
    """Replicas that are nothing but records. It outlives the runtime that uses it, as a machine would.

    Args:
        gpus: How many GPUs the machine has.
        port: Where all replicas seem to listen; None for a number of their own on which nothing listens.
    """

    name = "fake"

    def __init__(self, *, gpus: int = 0, port: int | None = None) -> None:
        self.accepts = frozenset(ArtifactKind)
        self.behaviours: dict[str, Behaviour] = {}
        """By revision id; a revision that is not here behaves well."""
        self.keys: dict[str, str] = {}
        """The worker key that each replica was started with last."""
        self.specs: dict[str, RevisionSpec] = {}
        """What each replica was started with last."""
        self.mounts: dict[str, Sequence[Mount]] = {}
        """What each replica saw of volumes when it was started last."""
        self.url = "http://127.0.0.1:8799"
        """Where replicas that start now reach the platform."""
        self._gpus, self._port, self._ports_given = gpus, port, 0
        self._saved: dict[str, Record] = {}
        self._exits: dict[tuple[str, int], asyncio.Future[Exit]] = {}
        self._asked_to_end: set[tuple[str, int]] = set()
        self._lines: dict[str, list[LogLine]] = {}

    def end(self, replica_id: str, *, code: int | None = None, signal: int | None = None) -> None:
        """End a replica's present run."""
        self._finish(
            self._saved[replica_id], Exit(at=time.time(), code=code, signal=signal, last_line=self._last(replica_id))
        )

    def print(self, replica_id: str, text: str) -> None:
        """Have a replica print a line."""
        self._lines.setdefault(replica_id, []).append(LogLine(time.time(), replica_id, text))

    async def open(self) -> list[Record]:
        """The replicas that an earlier runtime left."""
        return list(self._saved.values())

    def capacity(self) -> Capacity:
        """An ample machine."""
        return Capacity(64.0, 256.0, self._gpus, ("h100-80gb",) if self._gpus else ())

    def gpus(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(self._gpus))

    def free_port(self, taken: frozenset[int]) -> int:  # noqa: ARG002 - the protocol's
        """The given port, or the next number."""
        self._ports_given += 1
        return self._port or 20_000 + self._ports_given

    def platform_url(self, spec: RevisionSpec) -> str:  # noqa: ARG002 - the protocol's
        """The address at which replicas that start now reach the platform."""
        return self.url

    async def pin(self, image: str) -> str:
        """As it is."""
        return image

    async def prefetch(self, project_id: str, image: str) -> None:
        """Nothing to fetch."""

    async def close(self) -> None:
        """Nothing is held open; what is here outlives the runtime."""

    def doing(self, spec: RevisionSpec) -> str:  # noqa: ARG002 - the protocol's
        """Next to nothing."""
        return "Its artifact is being made ready."

    async def prepare(self, spec: RevisionSpec) -> None:
        """Succeed, unless the behaviour says otherwise."""
        failure = self._behaviour(spec).preparation_failure
        if failure is not None:
            raise PreparationFailed("ErrImagePull", failure)

    async def launch(self, record: Record, spec: RevisionSpec, key: str, mounts: Sequence[Mount]) -> None:
        """Begin a run."""
        self.keys[record.id], self.specs[record.id], self.mounts[record.id] = key, spec, mounts
        self._exits[record.id, record.runs] = asyncio.get_running_loop().create_future()
        code = self._behaviour(spec).exit_code
        if code is not None:
            self._finish(record, Exit(at=time.time(), code=code, last_line=self._last(record.id)))

    async def wait(self, record: Record) -> Exit:
        """Wait until something ends the run."""
        run = self._exits.get((record.id, record.runs))
        return await asyncio.shield(run) if run else Exit(at=time.time())

    async def probe(self, record: Record) -> Probe:
        """Healthy once the start is over."""
        behaviour = self._behaviour(record.spec)
        if time.time() - (record.started_at or 0.0) < behaviour.start_seconds:
            return Probe(Answer.UNREACHABLE, "nothing listens there")
        return Probe(Answer.HEALTHY) if behaviour.healthy else Probe(Answer.UNHEALTHY, "status 503")

    def terminate(self, record: Record) -> None:
        """End the run, unless the behaviour says otherwise."""
        behaviour, run = self._behaviour(record.spec), (record.id, record.runs)
        goes_on = behaviour.has_job_in_hand and run not in self._asked_to_end
        self._asked_to_end.add(run)
        if not behaviour.ignores_terminate and not goes_on:
            self._finish(record, Exit(at=time.time(), code=0))

    def kill(self, record: Record) -> None:
        """End the run in any case."""
        self._finish(record, Exit(at=time.time(), signal=9))

    def save(self, record: Record) -> None:
        """Keep the record as a file would: without its environment."""
        spec = msgspec.structs.replace(record.spec, environment={})
        self._saved[record.id] = msgspec.structs.replace(record, spec=spec)

    def forget(self, record: Record) -> None:
        """Drop the record and the log."""
        self._saved.pop(record.id, None)
        self._lines.pop(record.id, None)

    def log(self, replica_id: str) -> "FakeLog":
        """A reader of the replica's lines."""
        return FakeLog(self._lines.setdefault(replica_id, []))

    def _behaviour(self, spec: RevisionSpec) -> Behaviour:
        return self.behaviours.get(spec.revision_id, Behaviour())

    def _finish(self, record: Record, end: Exit) -> None:
        run = self._exits.get((record.id, record.runs))
        if run is not None and not run.done():
            run.set_result(end)

    def _last(self, replica_id: str) -> str:
        lines = self._lines.get(replica_id)
        return lines[-1].text if lines else ""


class FakeLog:
    """A reader of lines in memory."""

    def __init__(self, lines: list[LogLine]) -> None:
        self._lines, self._place = lines, 0

    def read_last(self, count: int | None) -> list[LogLine]:
        """The last lines; the place is then the end."""
        self._place = len(self._lines)
        return self._lines[: self._place] if count is None else self._lines[self._place - min(count, self._place) :]

    def read_new(self) -> list[LogLine]:
        """The next lines."""
        new = self._lines[self._place : self._place + READ_LINES]
        self._place += len(new)
        return new


class FakeVolumes:
    """Volumes that are on the machine as soon as somebody asks."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        """Why those cannot be had that are here by their names."""
        self.on_their_way: set[str] = set()
        """The names of those that do not arrive before they are taken out of here."""
        self.in_use: Callable[[], frozenset[TreeKey]] = frozenset

    async def start(self, in_use: Callable[[], frozenset[TreeKey]]) -> None:
        """Know what is in use."""
        self.in_use = in_use

    async def make(self, project_id: str, volume: VolumeVersion) -> Path:
        """A folder that is none, unless it was said otherwise."""
        while volume.name in self.on_their_way:  # noqa: ASYNC110 - for tests, which change the set as they like
            await asyncio.sleep(0.005)
        if volume.name in self.failures:
            raise PreparationFailed(FAILED_MOUNT, self.failures[volume.name])
        return Path("/nowhere", project_id, volume.volume_id, str(volume.version))

    def drop_deleted(self) -> None:
        """There is nothing to remove."""

    async def close(self) -> None:
        """Nothing is held open."""


class FakeRuntime(LocalRuntime):
    """A runtime whose replicas do what a test says, by `engine` and `volumes`.

    Args:
        watcher: What the platform does around the life of a replica.
        engine: The machine; one that another fake runtime has used has that one's replicas.
        volumes: Those on the machine.
    """

    def __init__(
        self, watcher: ReplicaWatcher, engine: FakeEngine | None = None, volumes: FakeVolumes | None = None
    ) -> None:
        self.engine, self.volumes = engine or FakeEngine(), volumes or FakeVolumes()
        super().__init__(self.engine, watcher, self.volumes)
