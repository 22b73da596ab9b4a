"""Jobs, the queues that they wait in, and the workers that claim them."""

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from machineshop.states import JobState


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
