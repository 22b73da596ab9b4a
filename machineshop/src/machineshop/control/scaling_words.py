"""Why a number of replicas was decided, in a word and in a sentence. Pure."""

from enum import StrEnum

from machineshop.control.wish import Signals, Wish, count
from machineshop.services.scaling_policy import Policy


class Reason(StrEnum):
    """Why a decision came to its number."""

    OFF = "off"
    """No metric is set: the lower bound."""
    METRIC = "metric"
    """As many as the metric asks for."""
    LOWER_BOUND = "lower_bound"
    """The metric asks for fewer than may be."""
    UPPER_BOUND = "upper_bound"
    """The metric asks for more than may be."""
    WAKING = "waking"
    """There is something to do and nothing ran."""
    NOT_IDLE_YET = "not_idle_yet"
    """There is nothing to do, but not for long enough."""
    IDLE = "idle"
    """There has been nothing to do for long enough."""
    STABILIZING = "stabilizing"
    """Fewer would do, but not for long enough."""
    MAX_STEP = "max_step"
    """The number changes no faster."""
    UNKNOWN = "unknown"
    """The metric has no value: it stays as it is."""


def say(policy: Policy, signals: Signals, wish: Wish, reason: Reason, idle_seconds: float) -> str:
    """A decision as a sentence."""
    says = wish.says[0].upper() + wish.says[1:]
    limit = "twice as many at a time" if policy.max_step is None else f"{policy.max_step} a minute"
    something = f"There is something to do ({_to_do(signals)})"
    waking = f"{something}: one replica."
    asked = something if policy.metric is None else says
    sentences = {
        Reason.OFF: "No metric is set: as many as min_replicas.",
        Reason.METRIC: waking if policy.metric is None else f"{says}.",
        Reason.WAKING: waking,
        Reason.LOWER_BOUND: f"{says}, but min_replicas is {policy.min_replicas}.",
        Reason.UPPER_BOUND: f"{asked}, but max_replicas is {policy.max_replicas}.",
        Reason.NOT_IDLE_YET: (
            f"There has been nothing to do for {idle_seconds:.0f} s; the last replica goes after "
            f"{policy.idle_seconds:g} s."
        ),
        Reason.IDLE: _say_idle(policy),
        Reason.STABILIZING: (
            f"{says}; fewer must have been enough for {policy.stabilization_seconds:g} s before there are fewer."
        ),
        Reason.MAX_STEP: f"{says}, but the number changes by no more than {limit}.",
        Reason.UNKNOWN: f"{says}: it stays as it is.",
    }
    return sentences[reason]


def _say_idle(policy: Policy) -> str:
    if policy.max_replicas == 0:
        return "There is nothing to do, and no replica may run: max_replicas is 0."
    return "There is nothing to do: the next job or request starts a replica."


def _to_do(signals: Signals) -> str:
    jobs, requests = signals.jobs, signals.held + signals.in_flight
    parts = [count(number, noun) for number, noun in ((jobs, "job"), (requests, "request")) if number]
    return " and ".join(parts)
