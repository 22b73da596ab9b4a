"""What others see of a replica: the planner, clients, and whoever clears up after those that have ended. Pure."""

from collections import defaultdict
from collections.abc import Iterable

from machineshop.runtime.base import PreloadStatus, Replica, ReplicaStatus
from machineshop.runtime.planner import Observed, Phase
from machineshop.runtime.record import Record
from machineshop.runtime.replica import back_off_seconds

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


# What a replica does of which nothing else is said.
_DOES = {
    Phase.WAITING: "It is about to start.",
    Phase.STARTING: "It is being started.",
    Phase.EXITED: "It has ended, and is about to start again.",
}


def _message(record: Record) -> str | None:
    if record.phase is not Phase.WAITING or record.crashes < 2:
        return record.message or _DOES.get(record.phase)
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
