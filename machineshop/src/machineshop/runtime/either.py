"""Two engines on one machine: bundles run as processes, images as containers.

Place in the flow: what `--runtime auto` uses where a container engine answers. A bundle needs no image and starts in a
second; whoever deploys an image gets what containers give. A record says which of the two its replica belongs to.
"""

from collections.abc import Sequence

from machineshop.errors import RuntimeUnavailable
from machineshop.runtime.base import ArtifactKind, Capacity, RevisionSpec
from machineshop.runtime.engine import Engine, Mount, ReplicaLog
from machineshop.runtime.exits import Exit
from machineshop.runtime.health import Probe
from machineshop.runtime.record import Record


class EitherEngine:
    """Passes each call on to the engine that runs this kind of artifact.

    Args:
        engines: Each takes what it accepts; the first one's machine is the one that is counted, as both run on it.
        name: What the two are called together.
    """

    def __init__(self, engines: Sequence[Engine], name: str) -> None:
        self.name = name
        self._engines = {kind: engine for engine in engines for kind in engine.accepts}
        self._all = tuple(engines)
        self.accepts: frozenset[ArtifactKind] = frozenset(self._engines)
        self._by_replica: dict[str, Engine] = {}

    async def open(self) -> list[Record]:
        """Find the replicas of all.

        Raises:
            RuntimeUnavailable: One of them cannot run.
        """
        records: list[Record] = []
        try:
            for engine in self._all:
                found = await engine.open()
                self._by_replica |= {record.id: engine for record in found}
                records += found
        except RuntimeUnavailable:
            await self.close()
            raise
        return records

    async def close(self) -> None:
        """Look away from all."""
        for engine in self._all:
            await engine.close()

    def capacity(self) -> Capacity:
        """What this machine has in all."""
        return self._all[0].capacity()

    def gpus(self) -> tuple[int, ...]:
        """The GPUs that any of them can use."""
        return tuple(sorted({gpu for engine in self._all for gpu in engine.gpus()}))

    def free_port(self, taken: frozenset[int]) -> int:
        """A port of this machine."""
        return self._all[0].free_port(taken)

    def platform_url(self, spec: RevisionSpec) -> str:
        """Where replicas of this revision reach the platform."""
        return self._of(spec).platform_url(spec)

    async def pin(self, image: str) -> str:
        """The image with its digest, where the engine of images has it."""
        return await self._engines[ArtifactKind.IMAGE].pin(image)

    async def prefetch(self, project_id: str, image: str) -> None:
        """Bring an image to this machine."""
        await self._engines[ArtifactKind.IMAGE].prefetch(project_id, image)

    def doing(self, spec: RevisionSpec) -> str:
        """What is done for the artifact."""
        return self._of(spec).doing(spec)

    async def prepare(self, spec: RevisionSpec) -> None:
        """Make the artifact ready."""
        await self._of(spec).prepare(spec)

    async def launch(self, record: Record, spec: RevisionSpec, key: str, mounts: Sequence[Mount]) -> None:
        """Start the replica."""
        await self._of(record.spec).launch(record, spec, key, mounts)

    async def wait(self, record: Record) -> Exit:
        """Wait until the present run is over."""
        return await self._of(record.spec).wait(record)

    async def probe(self, record: Record) -> Probe:
        """Ask the replica's health check once."""
        return await self._of(record.spec).probe(record)

    def terminate(self, record: Record) -> None:
        """Ask the replica to finish and end."""
        self._of(record.spec).terminate(record)

    def kill(self, record: Record) -> None:
        """End the replica now."""
        self._of(record.spec).kill(record)

    def save(self, record: Record) -> None:
        """Keep the record for the next `open`."""
        self._by_replica[record.id] = self._of(record.spec)
        self._of(record.spec).save(record)

    def forget(self, record: Record) -> None:
        """Remove the record of a replica that has ended, with its log."""
        self._by_replica.pop(record.id, None)
        self._of(record.spec).forget(record)

    def log(self, replica_id: str) -> ReplicaLog:
        """A reader of the replica's log."""
        return self._by_replica.get(replica_id, self._all[0]).log(replica_id)

    def _of(self, spec: RevisionSpec) -> Engine:
        return self._engines[spec.artifact]
