"""What every runtime offers: one protocol in the platform's words.

Place in the flow: the control loop tells a runtime what should run (`apply`), reads back what does (`observe`), and
passes what it saw on to the store, the gateway and the logs. A runtime knows nothing of the store or of HTTP routes;
what it needs from the platform comes in through the small protocols at the end of this file.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from machineshop.config import RegistryLogin


class ArtifactKind(StrEnum):
    """What a revision can run."""

    BUNDLE = "bundle"
    IMAGE = "image"


class VolumeVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a volume, whose files never change."""

    volume_id: str
    name: str
    """For people: whose volume it is, and which, the id says."""
    version: int


class MountedVolume(VolumeVersion, frozen=True, kw_only=True):
    """A version of a volume, and where replicas see its files."""

    mount_path: str
    """An absolute path."""


class RevisionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a runtime needs to know to run replicas of one revision."""

    deployment_id: str
    deployment_name: str
    project_id: str
    revision_id: str
    image: str
    """The artifact's reference, pinned by digest: `host/namespace/name@sha256:...`."""
    artifact: ArtifactKind = ArtifactKind.BUNDLE
    command: tuple[str, ...] = ()
    """Replaces the artifact's own command when not empty."""
    args: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    """The deployment's variables; the platform's own variables are added by the runtime."""
    secrets: dict[str, str] = {}
    """The names of secrets, by the variables that are to hold their values. What an engine is told to launch has those
    among its `environment`, as `ReplicaWatcher.reveal` gave them for that start; they are nowhere else."""
    volumes: tuple[MountedVolume, ...] = ()
    """What replicas see beside their own files, and cannot change."""
    cpu: float = 1.0
    memory_gib: float = 8.0
    storage_gib: int = 0
    """Of a container's own files, where the engine can bound them; 0: as much as there is."""
    gpu_type: str = "none"
    gpu_count: int = 0
    port: int = 8000
    health_check_path: str = "/health"
    """Empty: no checks; a replica is ready as soon as it runs."""
    startup_timeout_seconds: int = 1800
    """How long a run may take to get ready; then it is ended and started again."""
    grace_period_seconds: int = 300

    def __repr__(self) -> str:
        return f"RevisionSpec(deployment={self.deployment_name!r}, revision={self.revision_id!r}, ...)"


class ReplicaStatus(StrEnum):
    """The three states of a replica that clients know."""

    WAITING = "Waiting"
    """Not running yet, or between two restarts; the reason says why."""
    RUNNING = "Running"
    """Its process runs; it is ready when `ready_since` is set."""
    TERMINATED = "Terminated"
    """Ended and not coming back."""


class PreloadStatus(StrEnum):
    """How far the volumes of a replica are, in the words that clients know."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    """The last try failed; the replica's reason says why, and another try follows."""


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as the runtime sees it now. Times are seconds since the epoch."""

    id: str
    deployment_id: str
    revision_id: str
    image: str
    status: ReplicaStatus
    reason: str | None = None
    """A word of Kubernetes: ContainerCreating, CrashLoopBackOff, Error, Completed, OOMKilled, ErrImagePull, ..."""
    message: str | None = None
    """A sentence for people: what happened and what to do."""
    host: str = "127.0.0.1"
    port: int | None = None
    """Where it listens, once that is known."""
    created_at: float
    started_at: float | None = None
    ready_since: float | None = None
    """Since when its health check answers; None while it is not ready."""
    ended_at: float | None = None
    exit_code: int | None = None
    restarts: int = 0
    draining: bool = False
    volume_preload_status: PreloadStatus | None = None
    """None: it mounts no volume."""
    volume_preload_started_at: float | None = None
    volume_preload_completed_at: float | None = None
    """When all volumes that it mounts were on its machine."""


class Capacity(msgspec.Struct, frozen=True):
    """What the runtime's machines have for replicas, in all (not only what is free)."""

    cpu: float
    memory_gib: float
    gpus: int
    gpu_types: tuple[str, ...] = ()


class LogLine(msgspec.Struct, frozen=True):
    """One line that a replica printed. `at` is in seconds since the epoch."""

    at: float
    replica_id: str
    text: str


class Runtime(Protocol):
    """The engine that runs replicas."""

    name: str
    accepts: frozenset[ArtifactKind]

    async def start(self) -> None:
        """Find the replicas that already run and begin the runtime's own loop.

        Raises:
            RuntimeUnavailable: The engine does not answer, or the machine lacks something it needs.
        """

    async def close(self) -> None:
        """End the loop and leave the replicas running, to be adopted by the next start."""

    async def stop_all(self, grace_seconds: float) -> None:
        """Drain and end every replica, within `grace_seconds` at most; jobs that take longer are handed back."""

    async def stand_down(self, grace_seconds: float) -> None:
        """Want nothing any more and drain every replica within `grace_seconds`; `apply` begins anew."""

    async def apply(
        self,
        spec: RevisionSpec,
        replicas: int,
        busy: frozenset[str] = frozenset(),
        older: Sequence[RevisionSpec] = (),
    ) -> None:
        """Declare what should run of this deployment; returns at once, the runtime's loop makes it so.

        A `spec` with another revision than the running replicas' is a rollout. Calling again with the same arguments
        changes nothing.

        Args:
            spec: What runs.
            replicas: How many.
            busy: Replicas with a job in hand, to be stopped last.
            older: Revisions whose replicas serve until this one's are ready, and are started again should they end.
        """

    async def observe(self, deployment_id: str | None = None) -> list[Replica]:
        """All replicas, or those of one deployment, with those that ended in the last minutes."""

    async def delete(self, deployment_id: str) -> None:
        """Declare that nothing of this deployment should run; replicas drain within their grace period."""

    async def replace(self, replica_id: str) -> None:
        """End a replica at once, without regard to what it has in hand; another takes its place."""

    async def restart(self, replica_id: str, why: str) -> None:
        """End a replica's run at once and start it again, as after a crash; `why` is a sentence for people."""

    def logs(
        self,
        deployment_id: str,
        replica_id: str | None,
        *,
        tail: int | None,
        follow: bool,
        since: float = 0.0,
        wanted: Callable[[Replica], bool] | None = None,
    ) -> AsyncIterator[LogLine]:
        """Log lines, oldest first, of one replica or of all in order of time, of those that ended lately too.

        Args:
            deployment_id: Whose.
            replica_id: Of this replica alone.
            tail: Only so many of the lines that there are already; None for all.
            follow: Also those to come.
            since: Only those from then on, in seconds since the epoch.
            wanted: Says of which replicas; None: of all.
        """
        ...

    def capacity(self) -> Capacity:
        """What there is in all."""
        ...

    async def pin(self, image: str) -> str:
        """An image that the platform's registry does not know, with its digest where the runtime knows one."""
        ...

    def prefetch(self, project_id: str, image: str) -> None:
        """Begin to bring an image to where replicas run, before it is needed; returns at once."""

    def preload(self, project_id: str, volume: VolumeVersion) -> None:
        """The same for a version of a volume."""

    def drop_deleted_volumes(self) -> None:
        """Begin to take deleted versions of volumes away from where replicas run; returns at once."""


class Bundle(msgspec.Struct, frozen=True):
    """A bundle opened for reading."""

    digest: str
    """Of the manifest: `sha256:` and 64 hex digits."""
    config: bytes
    layer: AsyncIterator[bytes]
    """The gzipped tar, verified against its digest by the end of the iteration."""


class BundleSource(Protocol):
    """Where a runtime gets bundles: the platform's registry, or the one in its place."""

    async def open_bundle(self, project_id: str, image: str) -> Bundle:
        """Open the bundle that `image` names for a deployment of this project.

        Raises:
            ArtifactMissing: There is no such artifact, or it is not a bundle; the message says which.
        """
        ...


class VolumeFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of one version of a volume."""

    path: str
    """Within the volume: relative, with slashes."""
    size: int
    """In bytes."""
    digest: str
    """The SHA-256 of its bytes, as 64 hex digits."""
    blob_key: str
    """Where the platform's storage keeps its bytes."""


class VolumeSource(Protocol):
    """Where a runtime gets the files of volumes: the platform's storage. All of it may raise `StorageUnavailable`."""

    async def volume_files(self, project_id: str, volume_id: str, version: int) -> list[VolumeFile]:
        """The files of one version of a volume of this project.

        Raises:
            ArtifactMissing: There is no such version, or its files are not all there; the message says which.
        """
        ...

    async def has_volume(self, project_id: str, volume_id: str, version: int) -> bool:
        """Whether this project has this version of a volume, whatever is in it."""
        ...

    async def open_file(self, file: VolumeFile) -> AsyncIterator[bytes]:
        """The bytes of a file in pieces of some MiB at most, to be read to their end or closed.

        The reader verifies them.

        Raises:
            ArtifactMissing: They are gone.
        """
        ...

    async def link_file(self, file: VolumeFile, target: Path) -> bool:
        """Give a file another name on this machine, which shares its bytes with the platform's storage.

        Args:
            file: Which.
            target: The new name, which must be free.

        Returns:
            False where the storage is elsewhere, on another file system, or cannot have it: then nothing was done.

        Raises:
            ArtifactMissing: Its bytes are gone.
            OSError: There is no room for the name, or it may not be made.
        """
        ...


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a replica's run."""

    deployment_id: str
    started_at: float
    how: str
    """In a few words: `exit code 1`, `signal SIGKILL`."""


class PullGrant(msgspec.Struct, frozen=True):
    """Leave to pull one image from the platform's registry, or from the one in its place."""

    reference: str
    """The image as the engine reaches it, by digest."""
    credential: str | RegistryLogin | None
    """A bearer token of our registry for this alone, which ends by itself; the platform's login to one that others run;
    None: that one asks for none."""

    def __repr__(self) -> str:
        return f"PullGrant({self.reference!r}, ...)"


class ImageSource(Protocol):
    """Who knows which images are the platform's own."""

    async def grant_pull(self, project_id: str, image: str) -> PullGrant | None:
        """Leave to pull an image for a deployment of this project; None where it is no image of the platform's.

        Raises:
            ArtifactMissing: It should be the platform's and is not there, or it is another project's.
        """
        ...


class ReplicaWatcher(Protocol):
    """What the platform does around the life of a replica."""

    async def issue_key(self, spec: RevisionSpec, replica_id: str) -> str:
        """Make the worker key of a replica that is about to start (a restarted replica gets a new one)."""
        ...

    async def reveal(self, spec: RevisionSpec) -> RevisionSpec:
        """`spec` with the values of its secrets, as they are now, in its environment.

        Raises:
            MachineshopError: Some are not to be had; the message says which.
        """
        ...

    def replica_leaving(self, replica_id: str) -> bool:
        """The replica will be asked to end in a moment: hand it nothing new. May be said again.

        Returns whether something that was handed to it before may still be on its way.
        """
        ...

    async def replica_exited(self, replica_id: str, run: RunEnd | None = None) -> bool:
        """The replica's process has ended: take its key back and free what it held. Awaited before a restart.

        Returns whether the run has done any work: a crash after that is not one in a row with those before.
        """
        ...
