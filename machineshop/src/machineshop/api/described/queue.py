"""Jobs, queues, and what workers are told."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from machineshop.api.described.shapes import Error, Id, Listed, Object, Time
from machineshop.api.operation import Link, Operation, Query
from machineshop.models import FairKey, Include, QueueSettings
from machineshop.services.queue import MAX_BATCH
from machineshop.services.submissions import Submission
from machineshop.states import JobState, WebhookState


class Submitted(msgspec.Struct):
    """A job that is kept; it has been for longer where it is a duplicate."""

    requestId: Id  # noqa: N815 - as clients read it
    request_id: Id
    status: JobState
    duplicate: Literal[True] | UnsetType = UNSET


class JobShown(msgspec.Struct, kw_only=True):
    """A job."""

    request_id: Id
    model: str
    status: JobState
    priority: int
    fair_key: str | None
    retries: int
    attempt: int
    cancel_requested: bool
    inputs: Object | None
    outputs: Object | None
    info: Object
    error: Any
    """The text of a failure, as its worker gave it."""
    warnings: list[str]
    resubmit_of: Id | None
    created_at: Time
    deadline_at: Time | None
    claimed_at: Time | None
    progress_at: Time | None
    done_at: Time | None
    webhook_url: str | UnsetType = UNSET


class Estimate(msgspec.Struct):
    """When a job is likely to start."""

    start_at: Time
    earliest_at: Time
    latest_at: Time
    from_jobs: int


class Place(msgspec.Struct):
    """Why a job waits."""

    position: int | None
    reason: str
    message: str
    ready_replicas: int
    running: int
    estimate: Estimate | None


class WebhookShown(msgspec.Struct):
    """What became of a job's webhook."""

    state: WebhookState
    attempt: int
    url: str
    tries: int
    delivered_at: Time | None
    next_try_at: Time | None
    error: str | None


class JobStatus(JobShown, kw_only=True):
    """A job, and where it stands."""

    progress_age_seconds: float | None
    chunks: list[Any] | None
    queue: Place | None
    webhook: WebhookShown | None


class JobPage(Listed[JobShown]):
    """Some of a deployment's jobs, the newest first."""

    next_cursor: str | None


class Canceled(msgspec.Struct):
    """A job that will not run."""

    status: Literal["canceled"]


class NotCanceled(Error, kw_only=True):
    """A job that is no longer pending."""

    status: JobState
    cancel_requested: bool


class Resubmitted(msgspec.Struct):
    """A new job with the inputs of another."""

    requestId: Id  # noqa: N815 - as clients read it
    request_id: Id
    resubmit_of: Id
    status: Literal["pending"]


class Cleared(msgspec.Struct):
    """How many jobs were canceled."""

    canceled_count: int


class SettingsShown(msgspec.Struct):
    """How a queue is kept."""

    model: str
    max_pending: int
    max_running_per_key: int | None
    keep_seconds: int
    keep_count: int
    keys: dict[str, FairKey]


_CHANGED: dict[str, Any] = {"keys": dict[Annotated[str, Meta(min_length=1, max_length=128)], FairKey | None]}
SettingsChanges = msgspec.defstruct(
    "SettingsChanges",
    [
        (field.name, _CHANGED.get(field.name, field.type) | msgspec.UnsetType, UNSET)
        for field in msgspec.structs.fields(QueueSettings)
    ],
    namespace={"__doc__": "What to change of how a queue is kept; a fair key that is null is forgotten."},
    kw_only=True,
    forbid_unknown_fields=True,
    module=__name__,
)


class Metrics(msgspec.Struct):
    """How many jobs run and wait."""

    messages_running: int
    messages_waiting: int
    total_jobs: int


_Some = Annotated[str, Meta(min_length=1)]
_Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
_STATE = f"({'|'.join(JobState)})"
_States = Annotated[str, Meta(extra_json_schema={"pattern": f"^{_STATE}(,{_STATE})*$"})]
MODEL = Query("model", "The deployment, by its name or id.", _Some, required=True)
REQUEST = Query("request_id", "The job.", _Some, required=True)
_INCLUDE = Query("include", "What of a job's contents.", Include)
_NEXT = [
    Link("GET /v1/queue/status", {"model": "$request.body#/model", "request_id": "$response.body#/request_id"}),
]

SUBMIT = Operation(
    about="Submit a job, or an array of up to 1,000.",
    body=Submission | Annotated[list[Submission], Meta(min_length=1, max_length=MAX_BATCH)],
    answer=(Submitted, Listed[Submitted]),
    errors={404: None, 409: None},
    links=_NEXT,
)
STATUS = Operation(about="A job, why it waits, and the fate of its webhook.", answer=JobStatus, query=(MODEL, REQUEST))
RESULTS = Operation(about="Several jobs, in the order of their ids.", answer=Listed[JobShown], errors={404: None})
JOBS = Operation(
    about="A deployment's jobs, the newest first.",
    answer=JobPage,
    query=(
        MODEL,
        Query("status", "Of some states, with commas between them.", _States),
        Query("fair_key", "Of one fair key."),
        Query("created_after", "A time.", _Moment),
        Query("created_before", "A time.", _Moment),
        Query("limit", "How many at most.", Annotated[int, Meta(ge=1, le=MAX_BATCH)]),
        Query("cursor", "The `next_cursor` of the page before."),
        _INCLUDE,
    ),
)
CANCEL = Operation(
    about="Cancel a job; where a worker has it, ask that to stop.",
    answer=Canceled,
    errors={404: None, 409: NotCanceled},
)
RESUBMIT = Operation(
    about="Submit ended jobs again, all or none.", answer=Listed[Resubmitted], errors={404: None, 409: None}
)
CLEAR = Operation(about="Cancel all jobs that wait.", answer=Cleared, errors={404: None})
SETTINGS = Operation(about="How a queue is kept.", answer=SettingsShown, query=(MODEL,))
CHANGE_SETTINGS = Operation(
    about="Change how a queue is kept; what is left out stays.",
    body=SettingsChanges,
    answer=SettingsShown,
    query=(MODEL,),
)
METRICS = Operation(about="How many jobs run and wait.", answer=Metrics, query=(MODEL,))
EVENTS = Operation(
    about="Each change of a queue's jobs as it happens, or of one job, as server-sent events.",
    media=("text/event-stream",),
    query=(
        MODEL,
        Query("request_id", "One job, until it has ended."),
        Query("last_event_id", "The event to go on after."),
    ),
    headers=(Query("Last-Event-ID", "The event to go on after."),),
)
