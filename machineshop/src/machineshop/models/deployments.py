"""Deployments: what should run, its revisions, and how many replicas there should be."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from machineshop.models.files import MAX_VOLUME_VERSION


class EnvironmentVariable(msgspec.Struct, frozen=True, omit_defaults=True):
    """A variable of a deployment: a value, or the name of a secret that holds it."""

    name: str
    value: str | None = None
    value_from_secret: str | None = None


class VolumeMount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A volume and where replicas see it."""

    name: str
    mount_path: str
    version: Annotated[int, Meta(ge=0, le=MAX_VOLUME_VERSION)] | None = None
    """None in what a user asks for: the one that is mounted already, else the newest. A revision always has one."""
    volume_id: str | None = None
    """Which volume the name meant when the revision was made: another may have the name by now. The platform says it,
    whatever a request says."""


class ModelMount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model of a registry of models and where replicas see it."""

    model_id: str
    mount_path: str
    revision_id: str | None = None


class DeploymentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asks for: the fields of the create call, with defaults filled in."""

    name: str
    image: Annotated[str, Meta(min_length=1, max_length=1024)]
    gpu_type: str
    gpu_count: Annotated[int, Meta(ge=0, le=64)] = 0
    cpu: Annotated[float, Meta(ge=0.1, le=1024)] = 1.0
    """Cores."""
    memory: Annotated[float, Meta(gt=0, le=1000)] = 8.0
    """GiB."""
    storage: Annotated[int, Meta(ge=0, le=400)] = 100
    """GiB."""
    min_replicas: Annotated[int, Meta(ge=0, le=1000)] = 1
    max_replicas: Annotated[int, Meta(ge=0, le=1000)] | None = None
    """None: as `min_replicas`."""
    port: Annotated[int, Meta(ge=1, le=65535)] = 8000
    command: Annotated[tuple[str, ...], Meta(max_length=1000)] = ()
    """Replaces the artifact's own command."""
    args: Annotated[tuple[str, ...], Meta(max_length=1000)] = ()
    environment_variables: Annotated[tuple[EnvironmentVariable, ...], Meta(max_length=1000)] = ()
    autoscaling: dict[str, Any] | None = None
    health_check_path: Annotated[str, Meta(max_length=1024)] = "/health"
    """Empty: no checks."""
    termination_grace_period_seconds: Annotated[int, Meta(ge=0, le=86400)] = 300
    volumes: Annotated[tuple[VolumeMount, ...], Meta(max_length=100)] = ()
    model_mounts: Annotated[tuple[ModelMount, ...], Meta(max_length=100)] = ()
    capacity_type: Literal["stable", "preemptible"] = "stable"
    description: Annotated[str, Meta(max_length=4096)] = ""
    rollback_on_failure: bool = False
    """Whether a revision that never gets ready makes way for the last one that did, by itself."""
    startup_timeout_seconds: Annotated[int, Meta(ge=1, le=86400)] = 1800
    """How long a replica may run without ever getting ready; then it is started again."""
    progress_timeout_seconds: Annotated[int, Meta(ge=1, le=86400)] | None = None
    """How long the model may say nothing of a job in hand; then its replica is started again. None: for ever."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What should run."""

    id: str
    project_id: str
    config: DeploymentConfig
    revision_id: str
    revision_number: int
    created_at: float
    updated_at: float
    deleted_at: float | None = None
    desired_replicas: int | None = None
    """What the autoscaler has decided; None before its first decision."""

    @property
    def replicas(self) -> int:
        """How many replicas there should be: what was decided, within the bounds as they are now."""
        least, most = self.config.min_replicas, self.config.max_replicas
        return max(least, min(self.desired_replicas or 0, least if most is None else most))

    @property
    def name(self) -> str:
        """The user's name for it, unique in the project."""
        return self.config.name


class RevisionFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a revision did not get ready."""

    reason: str
    """A word of Kubernetes."""
    message: str
    replica_id: str | None = None
    log: tuple[str, ...] = ()
    """The last lines of that replica."""
    failed_at: float
    rolled_back: bool = False
    """Whether the platform went back to an earlier revision for it."""


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable configuration of a deployment."""

    id: str
    deployment_id: str
    number: int
    config: DeploymentConfig
    created_at: float
    ready_at: float | None = None
    """When all its replicas were ready for the first time."""
    failure: RevisionFailure | None = None
    """Why it did not get ready; None where it did, or still may."""


class RevisionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A revision became the active one."""

    number: int
    revision_number: int
    revision_id: str
    action: str
    """create, update, system or rollback."""
    activated_at: float
    image: str
    ready_at: float | None = None
    failure: RevisionFailure | None = None
    """Of its revision, as long as that is kept."""


class ScalingDecision(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas there should be from then on, and why."""

    at: float
    before: int
    replicas: int
    reason: str
    message: str
    wanted: int | None = None
    """What the metric asks for by itself; None where it has no value."""
    inputs: dict[str, Any] = {}
    """The policy and the signals that it was decided by."""
