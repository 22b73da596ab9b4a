"""What workers are told."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from machineshop.api.described.queue import MODEL
from machineshop.api.described.shapes import ErrorFields, Id, Object, Time
from machineshop.api.operation import Operation, Query
from machineshop.services.queue import MAX_BATCH


class ClaimShown(msgspec.Struct):
    """A job in a worker's hands."""

    request_id: Id
    model: str
    payload: Object
    priority: int
    info: Object
    retries: int
    attempt: int
    attempt_token: str
    created_at: Time
    claim_expires_at: Time | None


class Retrieved(msgspec.Struct):
    """The next job, if there is one; with `max_jobs` a list of them."""

    data: ClaimShown | list[ClaimShown] | None


class Updated(msgspec.Struct):
    """What a worker said is kept."""

    request_id: Id
    status: str
    cancel_requested: bool


class Told(msgspec.Struct):
    """What became of something that a worker said: it is kept, or refused with an `error`."""

    request_id: Id
    status: str | UnsetType = UNSET
    cancel_requested: bool | UnsetType = UNSET
    http_status: int | UnsetType = UNSET
    error: ErrorFields | UnsetType = UNSET


class Turn(msgspec.Struct):
    """What became of each update, and the next jobs."""

    updates: list[Told]
    data: list[ClaimShown]


_Duration = Annotated[str, Meta(extra_json_schema={"pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?(ns|us|ms|s|m|h))+$"})]
_TURN = (
    Query("x-turn-id", "What the worker calls this claim.", Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{16,64}$")]),
    Query("x-turn-tries", "How often it has made it and got no answer.", Annotated[int, Meta(ge=0, le=100)]),
)
RETRIEVE = Operation(
    about="Claim the next job; wait for it where there is none.",
    answer=Retrieved,
    query=(
        MODEL,
        Query("hostname", "Who claims it.", Annotated[str, Meta(min_length=1)], required=True),
        Query("timeout", "How long to wait at most, as `5s`.", _Duration),
        Query("claim_timeout", "For how many seconds the claim holds.", Annotated[int, Meta(ge=1, le=3600)]),
        Query("max_jobs", "Claim up to so many, as a list.", Annotated[int, Meta(ge=1, le=MAX_BATCH)]),
    ),
    headers=_TURN,
)
UPDATES = Operation(
    about="Tell of several jobs, and claim the next ones.", answer=Turn, headers=_TURN, errors={404: None}
)
UPDATE = Operation(about="Tell of a job.", answer=Updated, errors={404: None, 409: None})
