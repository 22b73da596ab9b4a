"""What a replica cannot start without: its artifact, and the volumes that it mounts.

Place in the flow: `local.py` wants the needs of a waiting replica met, and starts it once they are (`preparation.py`
does it once for all replicas with the same need).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from machineshop.runtime import replica_view
from machineshop.runtime.base import Replica, RevisionSpec
from machineshop.runtime.engine import Engine, Mount
from machineshop.runtime.preparation import Need, Preparations
from machineshop.runtime.record import Record
from machineshop.runtime.volumes.base import FAILED_MOUNT, Volumes


class Needs:
    """The needs of replicas, and which of them are met.

    Args:
        engine: Makes artifacts ready.
        volumes: Brings volumes to this machine.
        changed: Called whenever an answer of this object has changed.
    """

    def __init__(self, engine: Engine, volumes: Volumes, changed: Callable[[], None]) -> None:
        self._engine, self._volumes = engine, volumes
        self._preparations = Preparations(changed)

    def want(self, spec: RevisionSpec, now: float) -> None:
        """See to it that the needs of a revision's replicas are met, now or when the next try is due."""
        self._preparations.want(self._of(spec), spec, now)

    def are_met(self, spec: RevisionSpec) -> bool:
        """Whether a replica of this revision can start."""
        return self._preparations.are_ready(self._of(spec))

    def has_volumes(self, spec: RevisionSpec) -> bool:
        """Whether all that it mounts is here."""
        return self._preparations.are_ready(self._of_volumes(spec))

    def retry_at(self, spec: RevisionSpec) -> float | None:
        """When the next try is due; None where none is needed, or all are under way."""
        return self._preparations.retry_at(self._of(spec))

    def view(self, record: Record, spec: RevisionSpec) -> Replica:
        """A waiting replica as clients see it, with what is missing."""
        failure = self._preparations.failure(self._of(spec))
        if failure is not None:
            failed = self._preparations.failure(self._of_volumes(spec)) is not None
            return replica_view.view(record, reason=failure.reason, message=failure.message, preload_failed=failed)
        if record.message or self.are_met(spec):
            return replica_view.view(record)
        ready = self._preparations.are_ready([self._of_artifact(spec)])
        message = "Its volumes are being loaded." if ready else self._engine.doing(spec)
        return replica_view.view(record, message=message)

    def keep(self, wanted: Iterable[RevisionSpec], live: Iterable[RevisionSpec]) -> None:
        """Give up any other needs, and forget what is known of them.

        Args:
            wanted: The revisions whose artifacts stay ready.
            live: Those that have replicas: a volume that none of them mounts may leave this machine at any time.
        """
        artifacts = [self._of_artifact(spec) for spec in wanted]
        self._preparations.keep([*artifacts, *(need for spec in live for need in self._of_volumes(spec))])

    async def mounts(self, spec: RevisionSpec) -> list[Mount]:
        """What a replica that starts now is to see beside its own files.

        Raises:
            PreparationFailed: It is not here any more, and cannot be had.
        """
        return [Mount(await self._volumes.make(spec.project_id, one), one.mount_path) for one in spec.volumes]

    async def close(self) -> None:
        """Give up what is under way."""
        await self._preparations.close()

    def _of(self, spec: RevisionSpec) -> Sequence[Need]:
        return [self._of_artifact(spec), *self._of_volumes(spec)]

    def _of_artifact(self, spec: RevisionSpec) -> Need:
        return Need(("artifact", spec.project_id, spec.image), partial(self._engine.prepare, spec))

    def _of_volumes(self, spec: RevisionSpec) -> Sequence[Need]:
        return [
            Need(
                ("volume", spec.project_id, volume.volume_id, str(volume.version)),
                partial(self._volumes.make, spec.project_id, volume),
                FAILED_MOUNT,
            )
            for volume in spec.volumes
        ]
