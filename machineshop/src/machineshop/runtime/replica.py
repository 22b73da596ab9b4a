"""One replica of a local runtime: its record, and every step of its life as a pure function from record to record.

Place in the flow: `local.py` keeps the records and lets an engine save them; what clients see is `view`.
"""

from signal import Signals

import msgspec

from machineshop.runtime.base import Replica, ReplicaStatus, RevisionSpec
from machineshop.runtime.planner import Observed, Phase

FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 300.0
STEADY_RUN_SECONDS = 600.0
"""After a run of this length a crash counts as the first one again."""
ENDED_KEPT_SECONDS = 600.0
ENDED_KEPT_COUNT = 5
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
    port: int | None = None
    gpus: tuple[int, ...] = ()
    started_at: float | None = None
    ready_since: float | None = None
    was_ready: bool = False
    draining_since: float | None = None
    grace_period_seconds: float = 300.0
    killed: bool = False
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None


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


def starting(record: Record, *, port: int, gpus: tuple[int, ...], now: float) -> Record:
    """A run is about to begin."""
    return msgspec.structs.replace(
        record,
        phase=Phase.STARTING,
        runs=record.runs + 1,
        port=port,
        gpus=gpus,
        started_at=now,
        ready_since=None,
        exit_code=None,
        reason="ContainerCreating",
        message=None,
    )


def running(record: Record) -> Record:
    """Its process runs."""
    return msgspec.structs.replace(record, phase=Phase.RUNNING, reason=None, message=None)


def ready(record: Record, now: float) -> Record:
    """Its health check answers."""
    return msgspec.structs.replace(record, ready_since=now, was_ready=True, reason=None, message=None)


def not_ready(record: Record, message: str) -> Record:
    """Its health check does not answer, or not yet."""
    return msgspec.structs.replace(record, ready_since=None, message=message)


def draining(record: Record, now: float) -> Record:
    """It was asked to end; one that does not run ends at once."""
    record = msgspec.structs.replace(record, draining_since=now, ready_since=None)
    if record.phase is Phase.WAITING:
        return _ended(record, now, reason=record.reason or "Completed", message=record.message)
    return record


def exited(record: Record) -> Record:
    """Its process has ended; what that means is settled once the platform has taken note."""
    return msgspec.structs.replace(record, phase=Phase.EXITED, ready_since=None)


def settled(record: Record, end: Exit | StartFailed) -> Record:
    """The run is over and the platform knows: either the replica has ended, or it waits for its next start."""
    reason, message, code = _explain(record, end)
    record = msgspec.structs.replace(record, exit_code=code, gpus=(), port=None, ready_since=None)
    if record.draining_since is not None:
        return _ended(record, end.at, reason=reason, message=message)
    steady = end.at - (record.started_at or end.at) >= STEADY_RUN_SECONDS
    crashes = 1 if steady else record.crashes + 1
    wait = back_off_seconds(crashes)
    if crashes > 1:
        message = f"It ended {crashes} times in a row, the next start is {wait:g} s after the last. {message}"
        reason = "CrashLoopBackOff" if isinstance(end, Exit) else reason
    return msgspec.structs.replace(
        record, phase=Phase.WAITING, crashes=crashes, start_at=end.at + wait, reason=reason, message=message
    )


def abandoned(record: Record, now: float, message: str) -> Record:
    """It cannot be started again."""
    return _ended(record, now, reason=record.reason or "Error", message=message)


def _ended(record: Record, now: float, *, reason: str | None, message: str | None) -> Record:
    return msgspec.structs.replace(
        record, phase=Phase.ENDED, ended_at=now, ready_since=None, gpus=(), reason=reason, message=message
    )


def _explain(record: Record, end: Exit | StartFailed) -> tuple[str, str, int | None]:
    if isinstance(end, StartFailed):
        return end.reason, end.message, None
    if record.killed:
        seconds = f"{record.grace_period_seconds:g} s"
        return "Error", f"It did not end within its grace period of {seconds} and was killed.", end.exit_code
    if record.draining_since is not None and (end.code == 0 or end.signal == Signals.SIGTERM):
        return "Completed", "It was asked to end, and did.", end.exit_code
    reason = end.reason or ("Completed" if end.code == 0 else "Error")
    return reason, end.message or _describe(end), end.exit_code


def _describe(end: Exit) -> str:
    if end.signal is not None:
        how = f"The process was ended by signal {_signal_name(end.signal)}"
    elif end.code is not None:
        how = f"The process exited with code {end.code}"
    else:
        how = "The process ended and nobody saw how"
    if not end.last_line:
        return f"{how}, without having printed anything."
    return f"{how}. Its last line: {end.last_line[:LONGEST_QUOTE]}"


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return str(number)


def observed(record: Record, *, prepared: bool) -> Observed:
    """What the planner needs to know of it."""
    kill_at = None
    if record.draining_since is not None and record.phase is not Phase.ENDED:
        kill_at = record.draining_since + record.grace_period_seconds
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
        kill_at=kill_at,
    )


_STATUSES = {
    Phase.WAITING: ReplicaStatus.WAITING,
    Phase.STARTING: ReplicaStatus.WAITING,
    Phase.RUNNING: ReplicaStatus.RUNNING,
    Phase.EXITED: ReplicaStatus.WAITING,
    Phase.ENDED: ReplicaStatus.TERMINATED,
}


def view(record: Record, *, reason: str | None = None, message: str | None = None) -> Replica:
    """The replica as clients see it; `reason` and `message` override the record's own."""
    return Replica(
        id=record.id,
        deployment_id=record.spec.deployment_id,
        revision_id=record.spec.revision_id,
        image=record.spec.image,
        status=_STATUSES[record.phase],
        reason=reason or record.reason,
        message=message or record.message,
        port=record.port,
        created_at=record.created_at,
        started_at=record.started_at,
        ready_since=record.ready_since,
        ended_at=record.ended_at,
        exit_code=record.exit_code,
        restarts=max(0, record.runs - 1),
        draining=record.draining_since is not None,
    )


def forgettable(records: list[Record], now: float) -> list[Record]:
    """Of one deployment's records: those that ended too long ago, or before the last few that did."""
    ended = sorted((r for r in records if r.phase is Phase.ENDED), key=lambda r: r.ended_at or 0.0, reverse=True)
    recent = [r for r in ended[:ENDED_KEPT_COUNT] if now - (r.ended_at or 0.0) < ENDED_KEPT_SECONDS]
    return [record for record in ended if record not in recent]
