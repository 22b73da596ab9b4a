"""The record of a replica of a local runtime: all that it knows of it, and keeps over a restart of the server."""

import msgspec

from machineshop.runtime.base import RevisionSpec
from machineshop.runtime.planner import Phase


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime knows of a replica; it survives the server in a file. Times are seconds since the epoch."""

    id: str
    spec: RevisionSpec
    created_at: float
    phase: Phase = Phase.WAITING
    runs: int = 0
    """How many times it was started; the number of its present or last run."""
    crashes: int = 0
    start_at: float = 0.0
    preload_started_at: float | None = None
    """Since when it waits for its volumes; None where it has none."""
    preload_completed_at: float | None = None
    """Since when all of them are here."""
    port: int | None = None
    gpus: tuple[int, ...] = ()
    started_at: float | None = None
    platform_url: str | None = None
    """The address of the platform that its present or last run was told."""
    ready_since: float | None = None
    was_ready: bool = False
    draining_since: float | None = None
    draining_because: str | None = None
    """A sentence, where the reason is none of those that a user gives."""
    untold: bool = False
    """While draining: it gets nothing new any more, and has not been asked to end yet."""
    grace_period_seconds: float = 300.0
    """How long it may take to end. It was told `spec.grace_period_seconds`, which may be more."""
    insisted_at: float | None = None
    """While draining: when it was told to end at once."""
    killed: bool = False
    condemned_because: str | None = None
    """Why its present run was ended in order to be started again, as a sentence."""
    ready_run: int = 0
    """The last run that has been ready."""
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None


RECORD = msgspec.json.Decoder(Record)
