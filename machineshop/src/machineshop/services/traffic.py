"""The requests that come in over HTTP: how many wait, how many are in hand, and how long they took of late.

Place in the flow: the gateway tells each request's steps; the autoscaler reads what they add up to, the reconciler
which replicas are busy. All of it is memory of the server that forwards the requests, which is the one that runs the
loops: what a server before it has seen is not known.
"""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

# The longest stretch that a policy can look back over.
LONGEST_WINDOW_SECONDS = 3600.0
# What ended is counted in steps of this length, so that the memory does not grow with the traffic.
STEP_SECONDS = 1.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one deployment's requests at a moment."""

    held: int = 0
    """Wait for a replica that is ready."""
    in_flight: int = 0
    """Are in the hands of a replica."""
    arrived: int = 0
    """Came in within the window."""
    mean_seconds: float | None = None
    """How long those took that a replica answered within the window; None where there are none."""
    total: int = 0
    """How many ever came in: another number says that there was one meanwhile, however short it was."""


class _Step(msgspec.Struct):
    """What happened in one step of time."""

    at: float
    arrived: int = 0
    answered: int = 0
    seconds: float = 0.0


class _Deployment:
    """The counts of one deployment."""

    def __init__(self) -> None:
        self.held = 0
        self.in_flight = 0
        self.total = 0
        self.steps: deque[_Step] = deque()

    def step(self, now: float) -> _Step:
        """The present step; those that nobody can ask for any more go."""
        if not self.steps or now - self.steps[-1].at >= STEP_SECONDS:
            self.steps.append(_Step(at=now))
            while now - self.steps[0].at > LONGEST_WINDOW_SECONDS:
                self.steps.popleft()
        return self.steps[-1]


class Request:
    """One request, from its arrival to its end; a context manager."""

    def __init__(self, traffic: "Traffic", deployment_id: str) -> None:
        self._traffic, self._deployment_id = traffic, deployment_id
        self._is_held = False
        self._replica_id: str | None = None
        self._sent_at = 0.0

    def __enter__(self) -> Self:
        self._traffic.arrive(self._deployment_id)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._let_go()

    def hold(self) -> None:
        """It waits for a replica."""
        self._let_go()
        self._is_held = True
        self._traffic.hold(self._deployment_id)

    def send(self, replica_id: str) -> None:
        """It goes to this replica; said again where another one is tried."""
        self._let_go()
        self._replica_id = replica_id
        self._sent_at = self._traffic.send(self._deployment_id, replica_id)

    def answered(self) -> None:
        """The replica has answered, whole: only such requests say how long one takes."""
        if self._replica_id is not None:
            self._traffic.note_answer(self._deployment_id, self._replica_id, self._sent_at)

    def _let_go(self) -> None:
        if self._is_held:
            self._is_held = False
            self._traffic.release(self._deployment_id)
        if self._replica_id is not None:
            replica_id, self._replica_id = self._replica_id, None
            self._traffic.end(self._deployment_id, replica_id)


class Traffic:
    """The requests of all deployments.

    Args:
        clock: Seconds from anywhere, which nobody sets forward or back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deployments: defaultdict[str, _Deployment] = defaultdict(_Deployment)
        self._in_flight: Counter[str] = Counter()
        self._answered_by: Counter[str] = Counter()
        self._on_held: list[Callable[[str], None]] = []

    def request(self, deployment_id: str) -> Request:
        """A request that has just come in: `with traffic.request(id) as request`."""
        return Request(self, deployment_id)

    def on_held(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the deployment's id whenever a request has to wait for a replica."""
        self._on_held.append(listener)

    def in_flight(self, replica_id: str) -> int:
        """How many requests a replica has in hand."""
        return self._in_flight[replica_id]

    def busy_replicas(self) -> frozenset[str]:
        """The replicas with a request in hand."""
        return frozenset(self._in_flight)

    def answered_by(self, replica_id: str) -> int:
        """How many requests a replica has answered whole, since it was forgotten last."""
        return self._answered_by[replica_id]

    def forget_replica(self, replica_id: str) -> None:
        """Its process has ended: what it has answered counts for its next run no more."""
        self._answered_by.pop(replica_id, None)

    def seen(self, deployment_id: str, window_seconds: float) -> Seen:
        """What there is, and what there was within the last `window_seconds`."""
        known = self._deployments.get(deployment_id)
        if known is None:
            return Seen()
        since = self._clock() - window_seconds
        arrived = answered = 0
        seconds = 0.0
        for step in reversed(known.steps):
            if step.at + STEP_SECONDS <= since:
                break
            arrived, answered, seconds = arrived + step.arrived, answered + step.answered, seconds + step.seconds
        return Seen(
            held=known.held,
            in_flight=known.in_flight,
            arrived=arrived,
            mean_seconds=seconds / answered if answered else None,
            total=known.total,
        )

    def keep(self, deployment_ids: frozenset[str]) -> None:
        """Forget deployments that are gone; those that still have a request stay."""
        for gone in [id_ for id_ in self._deployments if id_ not in deployment_ids]:
            if not (self._deployments[gone].held or self._deployments[gone].in_flight):
                del self._deployments[gone]

    def arrive(self, deployment_id: str) -> None:
        """A request has come in; told by `Request`, as the ones below."""
        known = self._deployments[deployment_id]
        known.total += 1
        known.step(self._clock()).arrived += 1

    def hold(self, deployment_id: str) -> None:
        """It waits."""
        self._deployments[deployment_id].held += 1
        for listener in self._on_held:
            listener(deployment_id)

    def release(self, deployment_id: str) -> None:
        """It waits no longer."""
        self._deployments[deployment_id].held -= 1

    def send(self, deployment_id: str, replica_id: str) -> float:
        """It is in the hands of a replica; returns when."""
        self._deployments[deployment_id].in_flight += 1
        self._in_flight[replica_id] += 1
        return self._clock()

    def note_answer(self, deployment_id: str, replica_id: str, sent_at: float) -> None:
        """It was answered whole."""
        now = self._clock()
        self._answered_by[replica_id] += 1
        step = self._deployments[deployment_id].step(now)
        step.answered += 1
        step.seconds += max(0.0, now - sent_at)

    def end(self, deployment_id: str, replica_id: str) -> None:
        """It has left the replica."""
        self._deployments[deployment_id].in_flight -= 1
        self._in_flight[replica_id] -= 1
        if not self._in_flight[replica_id]:
            del self._in_flight[replica_id]
