"""One replica of a local runtime: its record, and every step of its life as a pure function from record to record.

Place in the flow: `local.py` keeps the records and lets an engine save them; what clients see is `view`.
"""

from collections import defaultdict
from collections.abc import Iterable
from signal import Signals

import msgspec

from machineshop.runtime.base import PreloadStatus, Replica, ReplicaStatus, RevisionSpec
from machineshop.runtime.planner import Observed, Phase

FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 300.0
STEADY_RUN_SECONDS = 600.0
"""After a run of this length a crash counts as the first one again."""
CRASH_LOOP = "CrashLoopBackOff"
DRAINING = "Draining"
ENDED_SHOWN_SECONDS = 600.0
ENDED_SHOWN_COUNT = 5
ENDED_KEPT_SECONDS = 24 * 3600.0
"""Of what has ended the log is kept as long: who looks for what broke last night finds it."""
ENDED_KEPT_COUNT = 10
"""Of each deployment; with the bound of a log that bounds the disk that they take."""
INSIST_SECONDS = 2.0
"""How long before it is killed a replica that has less time than it believes is asked to end at once. Handing a job
back takes a worker milliseconds, and it gives up on a platform that does not answer after as many seconds."""
LONGEST_QUOTE = 300
"""Characters of a replica's last line in a message; the rest is in its log."""


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


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    at: float
    code: int | None = None
    """None where a signal ended it, or where nobody saw it end."""
    signal: int | None = None
    last_line: str = ""
    reason: str | None = None
    """Set where the engine knows more than the code says, such as OOMKilled."""
    message: str | None = None

    @property
    def exit_code(self) -> int | None:
        """The code as shells and Kubernetes count it: 128 + n for signal n."""
        return self.code if self.signal is None else 128 + self.signal


class StartFailed(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run could not begin."""

    at: float
    reason: str
    message: str


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
    reason, message, code = _explain(record, end)
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


def _explain(record: Record, end: Exit | StartFailed) -> tuple[str, str, int | None]:
    if isinstance(end, StartFailed):
        return end.reason, end.message, None
    why = f"{record.draining_because} " if record.draining_because else ""
    if record.draining_since is not None and (end.code == 0 or end.signal == Signals.SIGTERM):
        return "Completed", f"{why}It was asked to end, and did.", end.exit_code
    if record.condemned_because is not None:
        return "Error", record.condemned_because, end.exit_code
    if record.killed:
        seconds = f"{round(record.grace_period_seconds, 1):g} s"
        return "Error", f"{why}It did not end within its grace period of {seconds} and was killed.", end.exit_code
    reason = end.reason or ("Completed" if end.code == 0 else "Error")
    return reason, end.message or _describe(record, end), end.exit_code


def how_it_ended(record: Record, end: Exit | StartFailed) -> str:
    """A run's end in a few words."""
    if record.condemned_because is not None:
        return record.condemned_because.rstrip(".")
    if isinstance(end, StartFailed) or end.reason is not None:
        return end.reason or "Error"
    if end.signal is not None:
        return f"signal {_signal_name(end.signal)}"
    return "nobody saw how" if end.code is None else f"exit code {end.code}"


def _describe(record: Record, end: Exit) -> str:
    if end.signal is not None:
        how = f"The process was ended by signal {_signal_name(end.signal)}"
    elif end.code is not None:
        how = f"The process exited with code {end.code}"
    else:
        how = "The process ended and nobody saw how"
    said = ", without having printed anything."
    if end.last_line:
        said = f". Its last line: {end.last_line[:LONGEST_QUOTE]}"
    if end.signal == Signals.SIGKILL and record.draining_since is None:
        memory = f"{record.spec.memory_gib:g} GiB"
        return (
            f"The platform did not kill it: mostly it is for want of memory, of which it may have {memory}. {how}{said}"
        )
    return how + said


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return str(number)


def observed(record: Record, *, prepared: bool) -> Observed:
    """What the planner needs to know of it."""
    insist_at, kill_at = _deadlines(record)
    return Observed(
        id=record.id,
        revision_id=record.spec.revision_id,
        phase=record.phase,
        created_at=record.created_at,
        ready=record.ready_since is not None,
        was_ready=record.was_ready,
        prepared=prepared,
        start_at=record.start_at,
        crashes=record.crashes,
        gpu_count=record.spec.gpu_count,
        draining=record.draining_since is not None,
        insist_at=insist_at,
        kill_at=kill_at,
    )


def _deadlines(record: Record) -> tuple[float | None, float | None]:
    """When to insist on a draining replica's end, and when to kill it."""
    if record.draining_since is None or record.untold or record.phase not in (Phase.STARTING, Phase.RUNNING):
        return None, None
    end = record.draining_since + record.grace_period_seconds
    if record.grace_period_seconds >= record.spec.grace_period_seconds:
        return None, end
    margin_seconds = min(INSIST_SECONDS, record.grace_period_seconds / 2)
    if record.insisted_at is None:
        return end - margin_seconds, None
    # A server that was away, or a machine that was asleep, may be late: the job still gets its moment.
    return None, max(end, record.insisted_at + margin_seconds)


_STATUSES = {
    Phase.WAITING: ReplicaStatus.WAITING,
    Phase.STARTING: ReplicaStatus.WAITING,
    Phase.RUNNING: ReplicaStatus.RUNNING,
    Phase.EXITED: ReplicaStatus.WAITING,
    Phase.ENDED: ReplicaStatus.TERMINATED,
}


def view(
    record: Record, *, reason: str | None = None, message: str | None = None, preload_failed: bool = False
) -> Replica:
    """The replica as clients see it; `reason` and `message` override the record's own.

    One that drains says so: it runs and is not ready, as one that starts is, and may be of the revision that starts.
    """
    if record.draining_since is not None and record.phase is not Phase.ENDED:
        reason = DRAINING
        message = record.draining_because or "It finishes what it has in hand, and ends."
    return Replica(
        id=record.id,
        deployment_id=record.spec.deployment_id,
        revision_id=record.spec.revision_id,
        image=record.spec.image,
        status=_STATUSES[record.phase],
        reason=reason or record.reason,
        message=message or _message(record),
        port=record.port,
        created_at=record.created_at,
        started_at=record.started_at,
        ready_since=record.ready_since,
        ended_at=record.ended_at,
        exit_code=record.exit_code,
        restarts=max(0, record.runs - 1),
        draining=record.draining_since is not None,
        volume_preload_status=_preload_status(record, failed=preload_failed),
        volume_preload_started_at=record.preload_started_at,
        volume_preload_completed_at=record.preload_completed_at,
    )


def _preload_status(record: Record, *, failed: bool) -> PreloadStatus | None:
    if not record.spec.volumes:
        return None
    if record.preload_completed_at is not None:
        return PreloadStatus.COMPLETED
    return PreloadStatus.FAILED if failed or record.phase is Phase.ENDED else PreloadStatus.IN_PROGRESS


def _message(record: Record) -> str | None:
    if record.phase is not Phase.WAITING or record.crashes < 2:
        return record.message
    wait = f"{back_off_seconds(record.crashes):g} s"
    return f"It ended {record.crashes} times in a row, the next start is {wait} after the last. {record.message}"


def shown(records: Iterable[Record], now: float) -> list[Record]:
    """Those that clients see: all that have not ended, and of each deployment the last few that did lately."""
    left: defaultdict[str, int] = defaultdict(lambda: ENDED_SHOWN_COUNT)
    kept = []
    for record in sorted(records, key=lambda r: r.ended_at or 0.0, reverse=True):
        if record.phase is Phase.ENDED:
            left[record.spec.deployment_id] -= 1
            if left[record.spec.deployment_id] < 0 or now - (record.ended_at or 0.0) >= ENDED_SHOWN_SECONDS:
                continue
        kept.append(record)
    return sorted(kept, key=lambda r: r.created_at)


def forgettable(records: list[Record], now: float) -> list[Record]:
    """Of one deployment's records: those that ended too long ago, or before the last few that did."""
    ended = sorted((r for r in records if r.phase is Phase.ENDED), key=lambda r: r.ended_at or 0.0, reverse=True)
    recent = [r for r in ended[:ENDED_KEPT_COUNT] if now - (r.ended_at or 0.0) < ENDED_KEPT_SECONDS]
    return [record for record in ended if record not in recent]
