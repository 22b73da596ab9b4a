"""How many replicas there should be: one pure decision from a policy, what is seen now, and what was seen before.

The rules, in the order in which they are applied:

1. The metric says a number: what there is to do, divided by what one replica is meant to bear.
2. Where there is something to do it is at least one; where there has been nothing to do for `idle_seconds` it is zero,
   whatever the metric says, and not before.
3. The bounds hold, always and at once.
4. More is done at once. Fewer is done once fewer have been enough for `stabilization_seconds`, and once in that time at
   most, so that noise does not start and stop replicas. Fewer than were busy at a time have not been enough: a metric
   whose target is above what a replica can bear would else swing for ever. Only the step to zero has its own time, by
   rule 2.
5. Within a minute the number changes by `max_step` at most. Metrics that lag behind what has been done may double it.
"""

from collections.abc import Callable, Iterable

import msgspec

from machineshop.control.scaling_words import Reason, say
from machineshop.control.wish import Signals, Wish, wish
from machineshop.services.scaling_policy import Metric, Policy

STEP_WINDOW_SECONDS = 60.0


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision has to know of those before it."""

    since: float
    """When the looking began: of what was before, nothing is known."""
    active_at: float
    """When there was last something to do."""
    activity: tuple[int, int]
    wanted: tuple[tuple[float, int], ...] = ()
    """What was asked for within the stabilization time: times and numbers, each number less than the one before."""
    counts: tuple[tuple[float, int], ...] = ()
    """Since when there were to be how many replicas."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas there should be, and why."""

    replicas: int
    reason: Reason
    message: str
    wanted: int | None
    """What the metric asks for by itself; None where it has no value."""
    history: History


def desired_replicas(
    policy: Policy, signals: Signals, now: float, history: History | None, current: int = 0
) -> Decision:
    """The number of replicas that there should be.

    Args:
        policy: What the user asks for.
        signals: What is seen now.
        now: Seconds since the epoch.
        history: Of the decision before; None for the first one.
        current: The number that was decided last.
    """
    asked = wish(policy, signals)
    history = _seen(policy, signals, asked, now, history, current)
    number, reason = _number(policy, signals, asked, now, history, current)
    if number != current:
        history = msgspec.structs.replace(history, counts=(*history.counts, (now, number)))
    message = say(policy, signals, asked, reason, now - history.active_at)
    return Decision(replicas=number, reason=reason, message=message, wanted=asked.replicas, history=history)


def _number(
    policy: Policy, signals: Signals, asked: Wish, now: float, history: History, current: int
) -> tuple[int, Reason]:
    least, most = policy.min_replicas, policy.max_replicas
    within = max(least, min(current, most))
    if policy.metric is None and least > 0:
        return least, Reason.OFF
    idle_long = now - history.active_at >= policy.idle_seconds
    if least == 0 and not signals.to_do and (idle_long or (current == 0 and not asked.replicas)):
        return 0, Reason.IDLE
    if asked.replicas is None and not (signals.to_do and within == 0):
        bound = Reason.LOWER_BOUND if within > current else Reason.UPPER_BOUND
        return within, Reason.UNKNOWN if within == current else bound
    wanted, reason = asked.replicas or 0, Reason.METRIC
    if wanted == 0 and least == 0:
        wanted, reason = _one(signals, current)
    if wanted < least:
        wanted, reason = least, Reason.LOWER_BOUND
    elif wanted > most:
        wanted, reason = most, Reason.UPPER_BOUND
    if wanted < within:
        stable = _stable(policy, now, history, within)
        if stable > wanted:
            wanted, reason = stable, Reason.STABILIZING
    stepped = _step(policy, wanted, within, history, now)
    return (wanted, reason) if stepped == wanted else (stepped, Reason.MAX_STEP)


def _one(signals: Signals, current: int) -> tuple[int, Reason]:
    """Where the metric asks for none, and it is not time for none."""
    if signals.to_do:
        return 1, Reason.WAKING if current == 0 else Reason.METRIC
    return 1, Reason.NOT_IDLE_YET


def _stable(policy: Policy, now: float, history: History, current: int) -> int:
    """The most that was asked for within the stabilization time; what was before the looking began is not known."""
    if policy.metric is None:
        return 0
    window = policy.stabilization_seconds
    if policy.metric in (Metric.REQUESTS, Metric.DURATION):
        window = max(window, policy.window_seconds)
    if now - history.since < window or now - _decreased_at(history) < window:
        return current
    return min(current, max((number for _, number in history.wanted), default=0))


def _decreased_at(history: History) -> float:
    """When there were last to be fewer: one decrease in each stabilization time, however the metric wavers."""
    changes = zip(history.counts[1:], history.counts, strict=False)
    return max((at for (at, number), (_, before) in changes if number < before), default=float("-inf"))


def _step(policy: Policy, wanted: int, current: int, history: History, now: float) -> int:
    if wanted > current:
        lowest = _extreme(history, now - STEP_WINDOW_SECONDS, current, min)
        limit = policy.max_replicas if policy.max_step is None else max(current, lowest + policy.max_step)
        if policy.metric in (Metric.DURATION, Metric.CUSTOM):
            window = policy.window_seconds if policy.metric is Metric.DURATION else STEP_WINDOW_SECONDS
            limit = min(limit, max(current, 2 * max(1, _extreme(history, now - window, current, min))))
        return max(policy.min_replicas, min(wanted, limit))
    if wanted < current and policy.max_step is not None:
        highest = _extreme(history, now - STEP_WINDOW_SECONDS, current, max)
        return min(policy.max_replicas, max(wanted, min(current, highest - policy.max_step)))
    return wanted


def _extreme(history: History, since: float, current: int, of: Callable[[Iterable[int]], int]) -> int:
    """The least or the greatest number that there was to be since then."""
    numbers = [current]
    for at, number in reversed(history.counts):
        numbers.append(number)
        if at <= since:
            break
    return of(numbers)


def _seen(policy: Policy, signals: Signals, asked: Wish, now: float, history: History | None, current: int) -> History:
    """The history with this look added, and without what nobody will ask for any more."""
    if history is None:
        history = History(since=now, active_at=now, activity=signals.activity, counts=((now, current),))
    active = signals.to_do > 0 or signals.activity != history.activity
    return History(
        since=history.since,
        active_at=now if active else history.active_at,
        activity=signals.activity,
        wanted=_with_wanted(history.wanted, _needed(asked, signals), now, now - policy.stabilization_seconds),
        counts=_recent(
            history.counts, now - max(STEP_WINDOW_SECONDS, policy.window_seconds, policy.stabilization_seconds)
        ),
    )


def _needed(asked: Wish, signals: Signals) -> int | None:
    return None if asked.replicas is None else max(asked.replicas, signals.busy)


def _with_wanted(
    wanted: tuple[tuple[float, int], ...], number: int | None, now: float, since: float
) -> tuple[tuple[float, int], ...]:
    """Of numbers that are no greater than a later one, none is needed."""
    kept = tuple((at, one) for at, one in wanted if at > since and (number is None or one > number))
    return kept if number is None else (*kept, (now, number))


def _recent(counts: tuple[tuple[float, int], ...], since: float) -> tuple[tuple[float, int], ...]:
    """Those that held at any time since then: the last one before it is among them."""
    first = max((place for place, (at, _) in enumerate(counts) if at <= since), default=0)
    return counts[first:]
