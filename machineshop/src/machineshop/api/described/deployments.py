"""Deployments: what is asked for, and what there is."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from machineshop.api.described.shapes import Empty, Error, Id, Listed, Time, shown
from machineshop.api.operation import Link, Operation, Query
from machineshop.models import DeploymentConfig
from machineshop.runtime.base import ReplicaStatus
from machineshop.services.deployment_rules import GPU_TYPES, MAX_STRING_BYTES, MIN_MEMORY_GIB, NAME, VARIABLE_NAME
from machineshop.services.scaling_policy import Metric
from machineshop.states import DeploymentStatus


class Autoscaling(msgspec.Struct):
    """How many replicas there are between the two bounds; with `profile` and `targetValue` in its older form."""

    metric: Metric | UnsetType = UNSET
    target: float | UnsetType = UNSET
    model: str | UnsetType = UNSET
    custom_metric_name: str | UnsetType = UNSET
    time_interval_minutes: float | UnsetType = UNSET
    stabilization_seconds: float | UnsetType = UNSET
    idle_seconds: float | UnsetType = UNSET
    max_step: int | UnsetType = UNSET
    profile: str | UnsetType = UNSET
    targetValue: str | UnsetType = UNSET  # noqa: N815 - as clients write it


class Variable(msgspec.Struct):
    """A variable with a value, or with the name of a secret that holds it."""

    name: str
    value: str | UnsetType = UNSET
    value_from_secret: str | UnsetType = UNSET
    value_from_secret_expires_at: Time | UnsetType = UNSET


class NewVariable(msgspec.Struct):
    """A variable with a value, or with the name of a secret that holds it."""

    name: Annotated[str, Meta(extra_json_schema={"pattern": f"^{VARIABLE_NAME.pattern}$"})]
    value: str | None = None
    value_from_secret: str | None = None


_Word = Annotated[str, Meta(max_length=MAX_STRING_BYTES)]
_ASKED: dict[str, Any] = {
    "name": Annotated[str, Meta(extra_json_schema={"pattern": f"^{NAME.pattern}$"})],
    "gpu_type": Annotated[str, Meta(extra_json_schema={"enum": list(GPU_TYPES)})],
    "memory": Annotated[float, Meta(ge=MIN_MEMORY_GIB, le=1000)],
    "command": Annotated[list[_Word], Meta(max_length=1000)],
    "args": Annotated[list[_Word], Meta(max_length=1000)],
    "environment_variables": Annotated[list[NewVariable], Meta(max_length=1000)],
    "autoscaling": Autoscaling | None,
    "health_check_path": Annotated[str, Meta(max_length=1024, extra_json_schema={"pattern": "^(/[!-~]*)?$"})],
}
_FIELDS = msgspec.structs.fields(DeploymentConfig)

NewDeployment = msgspec.defstruct(
    "NewDeployment",
    [
        (field.name, _ASKED.get(field.name, field.type), *([] if field.required else [field.default]))
        for field in _FIELDS
    ],
    namespace={"__doc__": "A deployment to be; fields that are not known are ignored."},
    kw_only=True,
    module=__name__,
)
DeploymentChanges = msgspec.defstruct(
    "DeploymentChanges",
    [(field.name, _ASKED.get(field.name, field.type) | UnsetType, UNSET) for field in _FIELDS],
    namespace={"__doc__": "What to change of a deployment: what is left out stays, lists are replaced whole."},
    kw_only=True,
    module=__name__,
)
# In answers they are all there, with their defaults filled in.
_SHOWN: dict[str, Any] = {"environment_variables": list[Variable], "autoscaling": Autoscaling | None}


class ReplicaShown(msgspec.Struct):
    """A replica, and what last happened to it."""

    replica_status: ReplicaStatus
    replica_status_reason: str | None
    replica_status_message: str | None
    replica_ready_since: Time | None
    revision_id: Id
    revision_number: int | None
    image: str
    replica_port: int | None
    restarts: int
    volume_preload_status: str | None
    volume_preload_started_at: Time | None
    volume_preload_completed_at: Time | None


class Failure(msgspec.Struct, kw_only=True):
    """Why a revision did not get ready."""

    reason: str
    message: str
    replica_id: str | None
    log: list[str]
    failed_at: Time
    rolled_back: bool


class LastFailure(Failure, kw_only=True):
    """Why the newest revision did not get ready."""

    revision_id: Id
    revision_number: int


class _DeploymentState(msgspec.Struct, kw_only=True):
    """What a deployment is doing."""

    object: Literal["deployment"]
    id: Id
    status: DeploymentStatus
    status_message: str | None
    created_at: Time
    updated_at: Time
    desired_replicas: int
    ready_replicas: int
    revision_id: Id
    revision_number: int
    replica_events: dict[str, ReplicaShown]


class _WithFailure(msgspec.Struct):
    last_failure: LastFailure | None


DeploymentListed = shown(
    "DeploymentListed", "A deployment, its status and its replicas.", [DeploymentConfig, _DeploymentState], _SHOWN
)
DeploymentShown = shown(
    "DeploymentShown",
    "A deployment with all that is known of it.",
    [DeploymentConfig, _DeploymentState, _WithFailure],
    _SHOWN,
)


class DeploymentDeleted(msgspec.Struct):
    """A deployment that is gone."""

    object: Literal["deployment"]
    id: Id
    name: str
    deleted: Literal[True]


class RevisionEventShown(msgspec.Struct):
    """A revision became the active one."""

    object: Literal["revision_event"]
    event_number: int
    revision_number: int
    revision_id: Id
    action: Literal["create", "update", "system", "rollback"]
    activated_at: Time
    image: str
    ready_at: Time | None
    failure: Failure | None


class _RevisionState(msgspec.Struct):
    """A revision, and how it fared."""

    object: Literal["revision"]
    id: Id
    revision_id: Id
    revision_number: int
    protocol: Literal["http"]
    created_at: Time
    ready_at: Time | None
    failure: Failure | None


RevisionShown = shown(
    "RevisionShown", "One revision's configuration, and how it fared.", [DeploymentConfig, _RevisionState], _SHOWN
)


class Health(msgspec.Struct):
    """Whether a replica is ready."""

    status: Literal["healthy", "unhealthy"]
    ready_replicas: int
    desired_replicas: int
    message: str | None


class Lines(msgspec.Struct):
    """Lines of logs."""

    lines: list[str]


class RuntimeShown(msgspec.Struct):
    """What runs replicas, and on what."""

    runtime: str
    accepts: list[Literal["bundle", "image"]]
    cpu: float
    memory: float
    """GiB."""
    gpus: int
    gpu_types: list[str]


class Prewarm(msgspec.Struct):
    """Images to have at hand, and a volume."""

    images: list[str] | UnsetType = UNSET
    volume: str | UnsetType = UNSET


class Decision(msgspec.Struct):
    """How many replicas there should be from then on, and why; with the policy and the signals behind it."""

    at: Time
    before: int
    replicas: int
    reason: str
    message: str
    wanted: int | None


class Scaling(msgspec.Struct):
    """Why there are as many replicas as there are."""

    object: Literal["scaling"]
    name: str
    desired_replicas: int
    min_replicas: int
    max_replicas: int | None
    autoscaling: Autoscaling | None
    now: Decision | None
    decisions: list[Decision]


_GENERIC_LIST: Any = Listed
_ONE = "/v1/deployments/{deployment}"
_OF_IT = {"deployment": "$response.body#/id"}
_NEXT = [Link(f"{method} {_ONE}", _OF_IT) for method in ("GET", "PATCH", "DELETE")]

RUNTIME = Operation(about="What runs replicas, and on what.", answer=RuntimeShown)
LIST = Operation(about="The project's deployments.", answer=_GENERIC_LIST[DeploymentListed])
PREWARM = Operation(
    about="Have images at hand, or seal a volume and have it at hand.",
    body=Prewarm,
    answer=Empty,
    errors={404: None, 409: None},
)
CREATE = Operation(
    about="Make a deployment.", body=NewDeployment, answer=DeploymentListed, errors={409: None}, links=_NEXT
)
GET = Operation(
    about="A deployment, its status and its replicas.",
    answer=DeploymentShown,
    query=(Query("deleted", "Also one that was deleted, by its id, as long as replicas of it drain.", bool),),
)
UPDATE = Operation(about="Change a deployment.", body=DeploymentChanges, answer=DeploymentShown, errors={409: None})
DELETE = Operation(about="Delete a deployment: pending jobs are canceled, replicas drain.", answer=DeploymentDeleted)
ROLLBACK = Operation(about="Run an earlier revision again.", answer=DeploymentShown, errors={409: None})
REVISIONS = Operation(
    about="What became active when, the newest first.",
    answer=Listed[RevisionEventShown],
    query=(
        Query("limit", "How many, 100 at most.", Annotated[int, Meta(ge=0, le=999_999_999)]),
        Query("before", "The number of an event: those before it.", Annotated[int, Meta(ge=0, le=999_999_999)]),
    ),
)
REVISION = Operation(about="One revision's configuration, by its number or id.", answer=RevisionShown)
LOGS = Operation(
    about="What replicas have written, in order of time.",
    answer=Lines,
    media=("application/json", "application/x-ndjson"),
    query=(
        Query("replica_id", "Of one replica."),
        Query("revision", "Of the replicas of one revision, by its number or id."),
        Query("version", "Of the replicas of one image, by its tag or the end of its digest."),
        Query("tail", "How many of the last lines, 10,000 at most.", Annotated[int, Meta(ge=0, le=999_999_999)]),
        Query("since", "A time, or a duration such as `10m`."),
        Query("follow", "Go on with what comes: one object a line.", bool),
    ),
)
HEALTH = Operation(about="Whether a replica is ready.", answer=Health, errors={503: (Health, Error)})
SCALING = Operation(
    about="Why there are as many replicas as there are.",
    answer=Scaling,
    query=(Query("limit", "How many decisions.", Annotated[int, Meta(ge=1, le=200)]),),
)
