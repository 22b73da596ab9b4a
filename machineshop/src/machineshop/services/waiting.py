"""Why a pending job waits, and until when. Pure: what is known of its queue and its workers, and the time."""

from enum import StrEnum

import msgspec

from machineshop.services.forecast import Wait, Workers, forecast, longer_of
from machineshop.services.status import Standing
from machineshop.store.places import MAX_POSITION, Ahead, Pace

# A worker that was done with a job this recently is between two of them.
SEEN_SECONDS = 30.0


class Reason(StrEnum):
    """What a pending job waits for."""

    NO_REPLICA = "no_replica"
    """No replica is ready, and no other worker was seen."""
    ALL_BUSY = "all_busy"
    """Workers are busy, and others go first."""
    BEHIND_HIGHER_PRIORITY = "behind_higher_priority"
    """Jobs of higher priority go first."""
    KEY_AT_CAP = "key_at_cap"
    """As many jobs of its fair key run as may."""
    NEXT = "next"
    """The next worker takes it."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when somebody asks."""

    fair_key: str
    ahead: Ahead
    pace: Pace
    replicas: Standing
    waiting_workers: int
    """How many workers ask for a job at this moment."""
    now: float

    @property
    def running(self) -> int:
        """How many jobs run."""
        return self.pace.counts.running

    @property
    def is_worked(self) -> bool:
        """Whether somebody works the queue, as far as jobs and questions for jobs tell."""
        return self.running > 0 or self.waiting_workers > 0 or self._is_between_jobs

    @property
    def _is_between_jobs(self) -> bool:
        """Whether somebody was just done with a job who can still take another."""
        pace = self.pace
        is_gone = pace.last_was_replicas and self.replicas.ready_replicas == 0
        return not is_gone and pace.last_done_at is not None and self.now - pace.last_done_at < SEEN_SECONDS

    @property
    def workers(self) -> int:
        """How many jobs can run at a time, as far as that shows."""
        seen = max(self.running + self.waiting_workers, self.replicas.ready_replicas)
        return max(1, seen) if self.is_worked else seen

    @property
    def is_key_at_cap(self) -> bool:
        """Whether no more jobs of its fair key may run."""
        return self.ahead.key_cap is not None and self.ahead.key_running >= self.ahead.key_cap


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """When a job will probably start; about nine in ten start within the bounds, if nothing new comes before them."""

    start_at: float
    earliest_at: float
    latest_at: float
    from_jobs: int
    """How many ended jobs it is judged by."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pending job stands."""

    position: int | None
    """1: the next one; None: too far back to be counted."""
    reason: Reason
    message: str
    """The reason as a sentence."""
    ready_replicas: int
    running: int
    estimate: Estimate | None


def explain(facts: Facts) -> Place:
    """Why a job waits, where it stands, and until when."""
    reason = _reason(facts)
    return Place(
        position=None if facts.ahead.jobs is None else facts.ahead.jobs + 1,
        reason=reason,
        message=_MESSAGES[reason](facts),
        ready_replicas=facts.replicas.ready_replicas,
        running=facts.running,
        estimate=None if reason is Reason.NO_REPLICA else _estimate(facts),
    )


def _reason(facts: Facts) -> Reason:
    if facts.replicas.ready_replicas == 0 and not facts.is_worked:
        return Reason.NO_REPLICA
    if facts.is_key_at_cap:
        return Reason.KEY_AT_CAP
    if facts.ahead.higher_priority:
        return Reason.BEHIND_HIGHER_PRIORITY
    return Reason.NEXT if facts.ahead.jobs == 0 else Reason.ALL_BUSY


def _estimate(facts: Facts) -> Estimate | None:
    pace = facts.pace
    if facts.ahead.jobs is None or not facts.is_worked or facts.running > len(pace.claimed_at):
        return None
    wait = forecast(pace.durations, _busy(facts.workers, pace.claimed_at, facts.now), facts.ahead.jobs)
    if facts.ahead.key_cap is not None:
        of_key = _busy(facts.ahead.key_cap, pace.key_claimed_at, facts.now)
        wait = longer_of(wait, forecast(pace.durations, of_key, facts.ahead.in_line))
    return None if wait is None else _at(wait, facts.now, len(pace.durations))


def _busy(number: int, claimed_at: tuple[float, ...], now: float) -> Workers:
    ages = tuple(max(0.0, now - at) for at in claimed_at)
    return Workers(number=max(number, len(ages)), ages_seconds=ages)


def _at(wait: Wait, now: float, from_jobs: int) -> Estimate:
    return Estimate(
        start_at=now + wait.likely_seconds,
        earliest_at=now + wait.earliest_seconds,
        latest_at=now + wait.latest_seconds,
        from_jobs=from_jobs,
    )


def _say_no_replica(facts: Facts) -> str:
    replicas = facts.replicas
    message = " ".join((replicas.message or "").split())  # an installer's output has several lines
    said = f"{replicas.status}: {message}" if message else f"{replicas.status}"
    return f"No replica is ready ({said.rstrip('.')})."


def _say_key_at_cap(facts: Facts) -> str:
    cap, in_line = facts.ahead.key_cap or 0, facts.ahead.in_line
    message = f"Of the fair key '{facts.fair_key}' {_count(cap, 'job runs', 'jobs run')}, and no more may"
    return f"{message}; {_go_first(in_line, 'other', 'others')}." if in_line else f"{message}."


def _say_behind_higher_priority(facts: Facts) -> str:
    higher, ahead = facts.ahead.higher_priority, facts.ahead.jobs
    message = _sentence(_go_first(higher, "job of higher priority", "jobs of higher priority"))
    if ahead is not None and ahead > higher:
        return f"{message}, then {_count(ahead - higher, 'other', 'others')}."
    return f"{message}."


def _say_next(facts: Facts) -> str:
    return f"It is next: {_workers_are(facts)}."


def _say_all_busy(facts: Facts) -> str:
    return f"{_sentence(_workers_are(facts))}, and {_go_first(facts.ahead.jobs, 'job', 'jobs')}."


def _workers_are(facts: Facts) -> str:
    if not facts.is_worked:
        ready = _count(facts.replicas.ready_replicas, "replica is ready", "replicas are ready")
        return f"{ready}, but nobody asks for jobs (a worker has to work the queue, as sprocket does with --queue)"
    if facts.workers > facts.running:
        return "a worker is about to ask for a job"
    return f"all workers are busy with {_count(facts.running, 'job', 'jobs')}"


def _go_first(number: int | None, one: str, many: str) -> str:
    if number is None or number > MAX_POSITION:
        return f"more than {MAX_POSITION:,} {many} go first"
    return f"{_count(number, one, many)} {'goes' if number == 1 else 'go'} first"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


_MESSAGES = {
    Reason.NO_REPLICA: _say_no_replica,
    Reason.ALL_BUSY: _say_all_busy,
    Reason.BEHIND_HIGHER_PRIORITY: _say_behind_higher_priority,
    Reason.KEY_AT_CAP: _say_key_at_cap,
    Reason.NEXT: _say_next,
}
