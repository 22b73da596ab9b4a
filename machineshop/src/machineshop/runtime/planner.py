"""What to do next for one deployment, decided from plain values.

Place in the flow: `local.py` looks at its replicas, asks `plan` here, and carries out the actions. Nothing in this file
reads a clock, a file or a socket.

The rules, in the order in which they are applied:

1. A draining replica whose time is shorter than it was told at its start is asked once more shortly before the end of
   that time. One that is still there at the end is killed.
2. Replicas of an old revision that never got ready go at once. Those that did stay until replicas of the new revision
   are ready in their place, so the number of ready replicas never falls below what was asked for.
3. More replicas of the current revision than asked for: those not ready go first, the newest of them before the others,
   then idle ones, then busy ones.
4. Fewer than asked for: new ones are made, during a rollout only a few beyond the count at a time.
5. A replica that is due starts if its GPUs are free. If they are not, and an old revision holds them, one of the old
   ones makes room, but only while nothing says that the new revision fails.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from math import ceil

import msgspec

SURGE_SHARE = 0.25
"""How many replicas beyond the count a rollout may add: this share of it, rounded up, as Kubernetes does by default."""


class Phase(StrEnum):
    """Where a replica is in its life."""

    WAITING = "waiting"
    """Not running: new, or between two runs."""
    STARTING = "starting"
    """Its process is being started."""
    RUNNING = "running"
    """Its process runs."""
    EXITED = "exited"
    """Its process has ended and the platform has not yet taken note."""
    ENDED = "ended"
    """Over; kept for a while to be looked at."""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """What should run of one deployment."""

    revision_id: str
    replicas: int
    busy: frozenset[str] = frozenset()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as far as decisions depend on it. Times are seconds since the epoch."""

    id: str
    revision_id: str
    phase: Phase
    created_at: float
    ready: bool = False
    was_ready: bool = False
    """Whether it has ever been ready."""
    prepared: bool = True
    """Whether its artifact is on this machine, ready to run."""
    start_at: float = 0.0
    """While waiting: not to be started before."""
    crashes: int = 0
    """Ends in a row that nobody asked for."""
    gpu_count: int = 0
    """GPUs that it holds while it runs, and needs for that."""
    draining: bool = False
    insist_at: float | None = None
    """While draining, and not told yet: when to tell it that it must end at once."""
    kill_at: float | None = None
    """While draining: the end of its grace period."""

    @property
    def holds_gpus(self) -> bool:
        """Whether its GPUs are taken now."""
        return self.phase in (Phase.STARTING, Phase.RUNNING)


class Create(msgspec.Struct, frozen=True):
    """Make a replica of the desired revision; it starts in a later plan."""


class Start(msgspec.Struct, frozen=True):
    """Start a waiting replica, for the first time or again."""

    replica_id: str


class Drain(msgspec.Struct, frozen=True):
    """Ask a replica to finish and end."""

    replica_id: str


class Insist(msgspec.Struct, frozen=True):
    """Ask a draining replica once more: it has less time than it believes, and is to let go of what it has in hand."""

    replica_id: str


class Kill(msgspec.Struct, frozen=True):
    """End a replica whose grace period is over."""

    replica_id: str


Action = Create | Start | Drain | Insist | Kill


def plan(desired: Desired, observed: Sequence[Observed], *, now: float, free_gpus: int) -> list[Action]:
    """The actions that lead from what runs to what should run; none when nothing is to be done.

    Args:
        desired: What should run.
        observed: The deployment's replicas; those that have ended may be among them and count for nothing.
        now: Seconds since the epoch.
        free_gpus: GPUs that no replica of any deployment holds.
    """
    rollout = _Rollout(desired, observed, now, free_gpus)
    leaving = rollout.failed_old() + rollout.replaced_old() + rollout.surplus()
    created = rollout.missing()
    started = rollout.startable(excluding=leaving)
    leaving += rollout.makes_room(leaving, started)
    return [
        *overdue(observed, now),
        *(Drain(replica.id) for replica in leaving),
        *(Create() for _ in range(created)),
        *(Start(replica.id) for replica in started),
    ]


def next_change(observed: Sequence[Observed], now: float) -> float | None:
    """When time alone may next change the plan: the end of a back-off or of a grace period, or shortly before that."""
    starts = [replica.start_at for replica in observed if replica.phase is Phase.WAITING and replica.start_at > now]
    ends = [at for replica in observed for at in (replica.insist_at, replica.kill_at) if at is not None and at > now]
    return min(starts + ends, default=None)


def overdue(observed: Sequence[Observed], now: float) -> list[Action]:
    """The part of a plan that needs no desired state: ending what outlives its grace period."""
    insisted = [Insist(replica.id) for replica in observed if _is_past(replica.insist_at, now)]
    return [*insisted, *(Kill(replica.id) for replica in observed if _is_past(replica.kill_at, now))]


def _is_past(at: float | None, now: float) -> bool:
    return at is not None and at <= now


class _Rollout:
    """The replicas of one deployment, sorted into those to keep and those to replace."""

    def __init__(self, desired: Desired, observed: Sequence[Observed], now: float, free_gpus: int) -> None:
        live = [replica for replica in observed if replica.phase is not Phase.ENDED and not replica.draining]
        self.desired, self.now, self.free_gpus = desired, now, free_gpus
        self.current = [replica for replica in live if replica.revision_id == desired.revision_id]
        self.old = [replica for replica in live if replica.revision_id != desired.revision_id]
        self.working_old = [replica for replica in self.old if replica.was_ready]
        self.gpus_coming_free = sum(r.gpu_count for r in observed if r.draining and r.holds_gpus)

    def failed_old(self) -> list[Observed]:
        """Old replicas that never got ready: they serve nobody and are not wanted any more."""
        return [replica for replica in self.old if not replica.was_ready]

    def replaced_old(self) -> list[Observed]:
        """Old replicas in whose place a new one is ready."""
        ready = sum(replica.ready for replica in self.current)
        return self._least_useful(self.working_old, ready + len(self.working_old) - self.desired.replicas)

    def surplus(self) -> list[Observed]:
        """Current replicas beyond the count."""
        return self._least_useful(self.current, len(self.current) - self.desired.replicas)

    def missing(self) -> int:
        """How many replicas to make now."""
        wanted = self.desired.replicas
        surge = max(1, ceil(wanted * SURGE_SHARE))
        old = len(self.working_old) - len(self.replaced_old())
        room = wanted + (surge if old else 0) - len(self.current) - old
        return max(0, min(wanted - len(self.current), room))

    def startable(self, excluding: Sequence[Observed]) -> list[Observed]:
        """Waiting replicas that are due and whose GPUs are free, the oldest first."""
        free, started = self.free_gpus, []
        for replica in sorted(self._due(excluding), key=_age):
            if replica.gpu_count <= free:
                free -= replica.gpu_count
                started.append(replica)
        return started

    def makes_room(self, leaving: Sequence[Observed], started: Sequence[Observed]) -> list[Observed]:
        """Old replicas to drain because the new revision has no other GPUs to start on; one new replica at a time."""
        blocked = [r for r in self._due(leaving) if r in self.current and r not in started]
        on_their_way = [r for r in self.current if not r.ready and r not in blocked and r not in leaving]
        works = any(replica.was_ready for replica in self.current)
        fails = not works and any(replica.crashes for replica in self.current)
        if not blocked or on_their_way or fails:
            return []
        free = self.free_gpus - sum(replica.gpu_count for replica in started) + self.gpus_coming_free
        free += sum(replica.gpu_count for replica in leaving if replica.holds_gpus)
        needed, room = min(blocked, key=_age).gpu_count, []
        staying = [r for r in self.old if r.holds_gpus and r.gpu_count and r not in leaving]
        for replica in self._least_useful(staying, len(staying)):
            if free >= needed:
                break
            free += replica.gpu_count
            room.append(replica)
        return room if free >= needed else []

    def _due(self, excluding: Sequence[Observed]) -> list[Observed]:
        waiting = [r for r in self.current + self.old if r.phase is Phase.WAITING and r not in excluding]
        return [replica for replica in waiting if replica.prepared and replica.start_at <= self.now]

    def _least_useful(self, replicas: Sequence[Observed], count: int) -> list[Observed]:
        def usefulness(replica: Observed) -> tuple[bool, bool, float, str]:
            return (replica.ready, replica.id in self.desired.busy, -replica.created_at, replica.id)

        return sorted(replicas, key=usefulness)[: max(0, count)]


_age: Callable[[Observed], tuple[float, str]] = lambda replica: (replica.created_at, replica.id)  # noqa: E731
