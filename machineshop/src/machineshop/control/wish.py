"""What is seen of a deployment, and how many replicas its metric asks for by itself. Pure."""

from collections.abc import Callable
from math import ceil, isnan

import msgspec

from machineshop.services.scaling_policy import Metric, Policy

# A metric that is relative to what runs says nothing as near to its target as this.
TOLERANCE = 0.1
# What a division of floats may be off by before it asks for one replica more.
EPSILON = 1e-9
# What is asked for beyond this is only "too many": far above what `max_replicas` can be, and a number everywhere.
MOST_ASKED = 1_000_000
# Numbers between these are written out.
LEAST_WRITTEN, MOST_WRITTEN = 1e-4, 1e15


class Signals(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of one deployment at a moment."""

    pending: int = 0
    running: int = 0
    """Jobs of its own queue."""
    backlog: int | None = None
    """Jobs that wait or run in the queue that the policy names; None: there is no such queue."""
    held: int = 0
    in_flight: int = 0
    """Requests that wait for a replica, and that one has in hand."""
    arrived: int = 0
    mean_request_seconds: float | None = None
    """Of the requests within the policy's window."""
    custom: float | None = None
    """The policy's own metric, on average over the replicas that say it."""
    ready: int = 0
    """Replicas that are ready."""
    busy: int = 0
    """Replicas with a job or a request in hand."""
    activity: tuple[int, int] = (0, 0)
    """Changes of these queues and requests ever: other numbers say that something was done, however short it was."""

    @property
    def to_do(self) -> int:
        """Jobs and requests that wait or are in hand."""
        return self.jobs + self.held + self.in_flight

    @property
    def jobs(self) -> int:
        """Jobs that wait or run, in its own queue and in the one that the policy names."""
        return self.pending + self.running + (self.backlog or 0)


class Wish(msgspec.Struct, frozen=True):
    """What the metric asks for, and how it comes to that."""

    replicas: int | None
    says: str


def wish(policy: Policy, signals: Signals) -> Wish:
    """What the policy's metric asks for."""
    if policy.metric is None:
        return Wish(policy.min_replicas, "no metric is set")
    return _BY_METRIC[policy.metric](policy, signals)


def _by_backlog(policy: Policy, signals: Signals) -> Wish:
    if policy.queue is not None and signals.backlog is None:
        return Wish(None, f"there is no queue '{policy.queue}'")
    if signals.backlog is None:
        number = _divided(signals.pending + signals.running, policy.target)
        return Wish(number, f"{signals.pending} waiting and {signals.running} running jobs, {_per(policy, number)}")
    number = _divided(signals.backlog, policy.target)
    return Wish(number, f"{count(signals.backlog, 'job')} of '{policy.queue}', {_per(policy, number)}")


def _by_ratio(policy: Policy, signals: Signals, value: float, says: str) -> Wish:
    """As much more or less than what is ready as the value is off its target."""
    is_near = abs(value / policy.target - 1) <= TOLERANCE
    number = signals.ready if is_near else _divided(signals.ready * value, policy.target)
    target = f"the target is {amount(policy.target)}, and {count(signals.ready, 'replica')} ready"
    return Wish(min(number, policy.max_replicas), f"{says}; {target}: {number}")


def _divided(amount: float, target: float) -> int:
    """Rounded up. Both numbers may be a user's, and out of all proportion: what cannot be divided asks for none."""
    share = amount / target - EPSILON
    return 0 if isnan(share) else ceil(max(0.0, min(share, MOST_ASKED)))


def _per(policy: Policy, number: int) -> str:
    return f"{amount(policy.target)} for each replica: {number}"


def _by_requests(policy: Policy, signals: Signals) -> Wish:
    number = _divided(signals.arrived, policy.target)
    return Wish(number, f"{count(signals.arrived, 'request')} {_of_late(policy)}, {_per(policy, number)}")


def _by_requests_in_flight(policy: Policy, signals: Signals) -> Wish:
    number = _divided(signals.held + signals.in_flight, policy.target)
    return Wish(number, f"{signals.held} requests wait and {signals.in_flight} are in hand, {_per(policy, number)}")


def _by_duration(policy: Policy, signals: Signals) -> Wish:
    if signals.mean_request_seconds is None:
        return Wish(0, f"no request was answered {_of_late(policy)}")
    says = f"a request took {amount(signals.mean_request_seconds)} s on average {_of_late(policy)}"
    return _by_ratio(policy, signals, signals.mean_request_seconds, says)


def _by_custom(policy: Policy, signals: Signals) -> Wish:
    if signals.custom is None:
        return Wish(None, f"no replica says a value of {policy.custom_metric_name} on /metrics")
    says = f"{policy.custom_metric_name} is {amount(signals.custom)} on average"
    return _by_ratio(policy, signals, signals.custom, says)


def _of_late(policy: Policy) -> str:
    return f"in the last {policy.window_seconds / 60:g} min"


def amount(value: float) -> str:
    """A number as people write it, `1,250,000` or `0.0125`; with an exponent only where nobody would write it out."""
    if value and not LEAST_WRITTEN <= abs(value) < MOST_WRITTEN:
        return f"{value:.3g}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:,.3f}".rstrip("0").rstrip(".")


def count(number: int, noun: str) -> str:
    """`3 jobs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


_BY_METRIC: dict[Metric, Callable[[Policy, Signals], Wish]] = {
    Metric.BACKLOG: _by_backlog,
    Metric.REQUESTS: _by_requests,
    Metric.IN_FLIGHT: _by_requests_in_flight,
    Metric.DURATION: _by_duration,
    Metric.CUSTOM: _by_custom,
}
