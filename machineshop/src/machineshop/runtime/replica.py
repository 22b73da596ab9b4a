"""One replica of a local runtime: every step of its life as a pure function from record to record.

Place in the flow: `local.py` keeps the records and lets an engine save them; what clients see is in `replica_view.py`.
"""

import msgspec

from machineshop.runtime.base import RevisionSpec
from machineshop.runtime.exits import Exit, StartFailed, explain
from machineshop.runtime.planner import Phase
from machineshop.runtime.record import Record

FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 300.0
STEADY_RUN_SECONDS = 600.0
"""After a run of this length a crash counts as the first one again."""
CRASH_LOOP = "CrashLoopBackOff"


def back_off_seconds(crashes: int) -> float:
    """How long to wait before the start that follows so many crashes in a row."""
    return min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2.0 ** min(crashes - 1, 30))


def created(replica_id: str, spec: RevisionSpec, now: float) -> Record:
    """A new replica, which waits for its first start."""
    return Record(
        id=replica_id,
        spec=spec,
        created_at=now,
        grace_period_seconds=spec.grace_period_seconds,
        reason="ContainerCreating",
    )


def preloading(record: Record, now: float, *, loaded: bool) -> Record:
    """It waits for its volumes, or has them."""
    if not record.spec.volumes or record.preload_completed_at is not None:
        return record
    return msgspec.structs.replace(
        record,
        preload_started_at=record.preload_started_at or now,
        preload_completed_at=now if loaded else None,
    )


def starting(record: Record, *, port: int, gpus: tuple[int, ...], platform_url: str, now: float) -> Record:
    """A run is about to begin."""
    return msgspec.structs.replace(
        record,
        phase=Phase.STARTING,
        runs=record.runs + 1,
        port=port,
        gpus=gpus,
        platform_url=platform_url,
        started_at=now,
        ready_since=None,
        condemned_because=None,
        exit_code=None,
        reason="ContainerCreating",
        message=None,
    )


def running(record: Record) -> Record:
    """Its process runs."""
    return msgspec.structs.replace(record, phase=Phase.RUNNING, reason=None, message=None)


def ready(record: Record, now: float) -> Record:
    """Its health check answers."""
    return msgspec.structs.replace(
        record, ready_since=now, was_ready=True, ready_run=record.runs, reason=None, message=None
    )


def not_ready(record: Record, message: str) -> Record:
    """Its health check does not answer, or not yet."""
    return msgspec.structs.replace(record, ready_since=None, message=message)


def draining(record: Record, now: float, *, within_seconds: float | None = None, why: str | None = None) -> Record:
    """It was asked to end; one that does not run ends at once.

    Args:
        record: The replica, which may be draining already.
        now: Seconds since the epoch.
        within_seconds: From now, where that is sooner than its grace period.
        why: A sentence, where no user has asked for it.
    """
    since, grace_seconds = record.draining_since or now, record.grace_period_seconds
    if within_seconds is not None:
        grace_seconds = min(grace_seconds, now + within_seconds - since)
    record = msgspec.structs.replace(
        record,
        draining_since=since,
        draining_because=record.draining_because or why,
        grace_period_seconds=grace_seconds,
        ready_since=None,
    )
    if record.phase is Phase.WAITING:
        return _ended_waiting(record, now)
    return msgspec.structs.replace(record, message=record.draining_because)


def condemned(record: Record, why: str) -> Record:
    """Its run is ended now, to be started again."""
    return msgspec.structs.replace(record, condemned_because=record.condemned_because or why, ready_since=None)


def leaving(record: Record) -> Record:
    """It is to get nothing new, and will be asked to end in a moment."""
    return msgspec.structs.replace(record, untold=True)


def told(record: Record, now: float) -> Record:
    """It is asked to end: from now on its grace period runs."""
    return msgspec.structs.replace(record, untold=False, draining_since=now)


def insisted(record: Record, now: float) -> Record:
    """It was told to end at once."""
    return msgspec.structs.replace(record, insisted_at=now)


def stranded(record: Record, platform_url: str) -> str | None:
    """Why a run that an earlier server began is of no use to this one; None where it is."""
    if record.platform_url in (None, platform_url):
        return None
    return f"It was started with the platform at {record.platform_url}, which is now at {platform_url}."


def exited(record: Record) -> Record:
    """Its process has ended; what that means is settled once the platform has taken note."""
    return msgspec.structs.replace(record, phase=Phase.EXITED, ready_since=None)


def settled(record: Record, end: Exit | StartFailed, *, worked: bool = False) -> Record:
    """The run is over and the platform knows: either the replica has ended, or it waits for its next start.

    A crash after a run that has done some work, or has gone on for long, is the first one again: what ended it came
    with what it was doing, and others must not wait for it.
    """
    reason, message, code = explain(record, end)
    record = msgspec.structs.replace(record, exit_code=code, gpus=(), port=None, ready_since=None)
    if record.draining_since is not None:
        return _ended(record, end.at, reason=reason, message=message)
    steady = end.at - (record.started_at or end.at) >= STEADY_RUN_SECONDS
    crashes = 1 if steady or worked else record.crashes + 1
    if crashes > 1 and isinstance(end, Exit):
        reason = CRASH_LOOP
    start_at = end.at + back_off_seconds(crashes)
    return msgspec.structs.replace(
        record, phase=Phase.WAITING, crashes=crashes, start_at=start_at, reason=reason, message=message
    )


def abandoned(record: Record, now: float, message: str) -> Record:
    """It cannot be started again."""
    return _ended(record, now, reason=_last_reason(record), message=message)


def _ended_waiting(record: Record, now: float) -> Record:
    if not record.runs:
        return _ended(record, now, reason="Completed", message="It was asked to end before it was started.")
    times = f"It ended {record.crashes} times in a row. " if record.crashes > 1 else ""
    return _ended(record, now, reason=_last_reason(record), message=f"{times}{record.message}")


def _last_reason(record: Record) -> str:
    """Why it last ended; nothing that has ended for good is backing off."""
    return "Error" if record.reason in (None, CRASH_LOOP) else record.reason


def _ended(record: Record, now: float, *, reason: str | None, message: str | None) -> Record:
    return msgspec.structs.replace(
        record, phase=Phase.ENDED, ended_at=now, ready_since=None, gpus=(), reason=reason, message=message
    )
