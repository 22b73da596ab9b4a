"""The nouns of the platform as immutable values. Times are seconds since the epoch, sizes are bytes."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from machineshop.states import JobState, VolumeState

# More versions than anybody makes, and fit for any database.
MAX_VOLUME_VERSION = 999_999_999
# The project that the server makes, of its own admin key.
DEFAULT_SLUG = "default"


class Scope(StrEnum):
    """What a key may do. People have the first three, each of which may all that the next one may."""

    ADMIN = "admin"
    """Everything in its project, and the projects and keys of its organization."""
    DEVELOPER = "developer"
    """Everything in its project but keys."""
    VIEWER = "viewer"
    """Look at what its project has, and change nothing."""
    WORKER = "worker"
    """Work the queue of one deployment, read the project's files, and upload its jobs' outputs."""


class Organization(msgspec.Struct, frozen=True):
    """The owner of projects and of a namespace in the registry."""

    id: str
    name: str
    slug: str


class Project(msgspec.Struct, frozen=True):
    """What everything else belongs to."""

    id: str
    organization_id: str
    name: str
    slug: str


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored: its hash, never the key."""

    id: str
    project_id: str
    name: str
    prefix: str
    """The first characters of the key, to recognise it by."""
    scope: Scope
    deployment_id: str | None = None
    replica_id: str | None = None
    created_at: float
    expires_at: float | None = None
    """When it ends by itself."""
    last_used_at: float | None = None
    """To the minute or so; of a replica's key it is not kept."""
    revoked_at: float | None = None


class Identity(msgspec.Struct, frozen=True):
    """Who makes a request."""

    key: ApiKey
    project: Project
    organization: Organization


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who changes something, and from where."""

    name: str
    """The name of the key, or of the command on the server's machine."""
    key_id: str | None = None
    address: str = ""
    """Where the request came from."""


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One change that somebody made."""

    id: str
    at: float
    organization_id: str
    project_id: str
    actor: Actor
    action: str
    """The kind of thing and what was done to it, as `deployment.update`."""
    subject: str
    """The name or id of the thing."""
    before: dict[str, Any] | None = None
    """What was changed, as it was; without secrets."""
    after: dict[str, Any] | None = None


class EnvironmentVariable(msgspec.Struct, frozen=True, omit_defaults=True):
    """A variable of a deployment: a value, or the name of a secret that holds it."""

    name: str
    value: str | None = None
    value_from_secret: str | None = None


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a secret; its value is in `SealedValue` alone."""

    id: str
    project_id: str
    name: str
    description: str = ""
    ttl_seconds: int | None = None
    expires_at: float | None = None
    """When it is deleted; None: never."""
    created_at: float
    updated_at: float
    created_by: str
    """The id of the API key that made it."""
    last_updated_by: str


class SealedValue(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a secret as it is stored: encrypted, and bound to its project and name."""

    key_id: str
    """Which key it was sealed with."""
    nonce: bytes
    ciphertext: bytes


class VolumeMount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A volume and where replicas see it."""

    name: str
    mount_path: str
    version: Annotated[int, Meta(ge=0, le=MAX_VOLUME_VERSION)] | None = None
    """None in what a user asks for: the one that is mounted already, else the newest. A revision always has one."""
    volume_id: str | None = None
    """Which volume the name meant when the revision was made: another may have the name by now. The platform says it,
    whatever a request says."""


class VolumeOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Where the files of a version are copied from."""

    uri: str
    """`s3://bucket/prefix`."""
    role_arn: str | None = None
    """The role that the platform takes on to read it."""
    credentials_secret: str | None = None
    """The secret of the project that holds keys to it."""


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """Versioned read-only files; those of version n are the project's files whose names begin with `<name>/<n>/`."""

    id: str
    project_id: str
    name: str
    current_version: int
    created_at: float
    updated_at: float


class VolumeVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a volume."""

    volume_id: str
    number: int
    state: VolumeState
    message: str = ""
    """Why it failed."""
    origin: VolumeOrigin | None = None
    """None: its files are uploaded."""
    created_at: float
    sealed_at: float | None = None
    """Since when its files cannot change any more."""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """How many files something has, and of how many bytes in all."""

    count: int = 0
    size: int = 0


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


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One queued request."""

    id: str
    project_id: str
    deployment_id: str
    model: str
    """The deployment's name when the job was submitted."""
    state: JobState
    priority: int
    fair_key: str = ""
    """Whose job it is, for fairness; empty: nobody's in particular."""
    payload: msgspec.Raw
    outputs: msgspec.Raw | None = None
    info: dict[str, Any] = {}
    retries: int = 0
    attempt: int = 0
    """How often it was claimed; the number of its current or last attempt."""
    cancel_requested: bool = False
    cancel_due_at: float | None = None
    """When a cancel is carried through without its worker."""
    deadline_at: float | None = None
    """When it fails, unless it has ended by then."""
    idempotency_key: str | None = None
    webhook_url: str | None = None
    """Who is told when it has ended."""
    resubmit_of: str | None = None
    """The ended job that it repeats."""
    change: int = 0
    """The number of its last change among all changes of its queue."""
    sequence: int = 0
    """Its place in the order of submission, among all jobs."""
    created_at: float
    claimed_at: float | None = None
    """When its current or last attempt began."""
    claim_expires_at: float | None = None
    progress_at: float | None = None
    """When the model last made itself heard, as its worker says."""
    done_at: float | None = None


class Include(StrEnum):
    """What of a job's contents is shown; what is left out is null."""

    PAYLOAD = "payload"
    """Its inputs and its outputs."""
    OUTPUTS = "outputs"
    """Its outputs alone."""
    NONE = "none"
    """Neither."""


class QueueSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one deployment's queue is kept."""

    max_pending: Annotated[int, Meta(ge=1, le=100_000_000)] = 1_000_000
    """More jobs than this do not wait: submits are refused until there is room."""
    max_running_per_key: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """How many jobs of one fair key run at a time, where the key has no cap of its own."""
    keep_seconds: Annotated[int, Meta(ge=60, le=10 * 365 * 86400)] = 7 * 86400
    """For how long ended jobs are kept."""
    keep_count: Annotated[int, Meta(ge=0, le=100_000_000)] = 100_000
    """How many ended jobs are kept; the oldest go first."""
    keys: dict[str, "FairKey"] = {}


class FairKey(msgspec.Struct, frozen=True, omit_defaults=False):
    """What one fair key is entitled to."""

    weight: Annotated[float, Meta(ge=0.001, le=1000)] = 1.0
    """Its share of the workers' time, beside the weights of the others that wait."""
    max_running: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """How many of its jobs run at a time; None: as the queue says."""


class QueueCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a queue wait and run."""

    pending: int = 0
    running: int = 0


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """Who claims a job."""

    hostname: str
    replica_id: str | None = None
    """Known when the worker uses the key that its replica was given."""
    claim_timeout_seconds: int | None = None
    """How long the claim holds without a renewal; None: as long as the replica lives."""
    turn_id: str | None = None
    """What it calls this request, where it asks again for what was not answered."""
    asks_again: bool = False
    """It has made this request before."""


class Claim(msgspec.Struct, frozen=True):
    """A job handed to a worker, with the token that fences the attempt."""

    job: Job
    token: str


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a project's object storage."""

    project_id: str
    name: str
    size: int
    etag: str
    created_at: float
    digest: str | None = None
    """The SHA-256 of its bytes in hex digits; None where that is not known (yet)."""
    origin_tag: str | None = None
    """Which object of an origin it was copied from, in which state; None: it was uploaded."""
