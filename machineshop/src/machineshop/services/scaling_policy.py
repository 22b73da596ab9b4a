"""How many replicas a deployment should have, as its user put it: `autoscaling`, checked and read. Pure."""

from enum import StrEnum
from typing import Any

import msgspec

from machineshop.errors import InvalidRequest
from machineshop.models import DeploymentConfig

STABILIZATION_SECONDS = 300.0
IDLE_SECONDS = 300.0
WINDOW_MINUTES = 1.0
LEAST_WINDOW_MINUTES = 0.001
# What the memory of the requests reaches back to.
MAX_WINDOW_MINUTES = 60
MAX_SECONDS = 86_400
MAX_STEP = 1000
LEAST_TARGET = 0.001
MAX_TARGET = 1_000_000_000


class Metric(StrEnum):
    """What the number of replicas follows."""

    BACKLOG = "QueueBacklogPerWorker"
    """Jobs that wait or run, for each replica."""
    REQUESTS = "HTTPTotalRequests"
    """Requests that came in within the interval, for each replica."""
    DURATION = "HTTPAvgRequestDuration"
    """Seconds that a request took on average within the interval."""
    IN_FLIGHT = "HTTPRequestsInFlight"
    """Requests that wait or are in hand now, for each replica."""
    CUSTOM = "CustomMetric"
    """A number that the replicas say themselves, on average."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas there should be."""

    min_replicas: int
    max_replicas: int
    metric: Metric | None = None
    """None: `min_replicas`, and where that is 0 one as soon as there is something to do."""
    target: float = 1.0
    """The metric's value that one replica is meant to bear."""
    queue: str | None = None
    """Whose backlog counts, by name; None: the deployment's own."""
    custom_metric_name: str | None = None
    window_seconds: float = WINDOW_MINUTES * 60
    """How far the metrics of requests look back."""
    stabilization_seconds: float = STABILIZATION_SECONDS
    """How long fewer must have been enough before there are fewer."""
    idle_seconds: float = IDLE_SECONDS
    """How long there must have been nothing to do before there is none."""
    max_step: int | None = None
    """By how many replicas the number may change within a minute."""


_OF_METRIC: dict[Metric, tuple[str, ...]] = {
    Metric.BACKLOG: ("model",),
    Metric.REQUESTS: ("time_interval_minutes",),
    Metric.DURATION: ("time_interval_minutes",),
    Metric.IN_FLIGHT: (),
    Metric.CUSTOM: ("custom_metric_name",),
}
_LIMITS = {
    "target": (LEAST_TARGET, MAX_TARGET),
    "time_interval_minutes": (LEAST_WINDOW_MINUTES, MAX_WINDOW_MINUTES),
    "stabilization_seconds": (0, MAX_SECONDS),
    "idle_seconds": (0, MAX_SECONDS),
    "max_step": (1, MAX_STEP),
}


def checked(policy: dict[str, Any] | None) -> dict[str, Any] | None:
    """The fields of `autoscaling`, if they are sound; None where it is off.

    The older form (`profile`, `targetValue`) is kept as it is. Fields that are not the metric's are let be, as clients
    send some.

    Raises:
        InvalidRequest: `param` names the field that is wrong.
    """
    if not policy:
        return None
    if "profile" in policy:
        return policy
    metrics = {str(metric): metric for metric in Metric}
    metric = metrics.get(policy["metric"]) if isinstance(policy.get("metric"), str) else None
    if metric is None:
        raise InvalidRequest(
            f"autoscaling.metric is {policy.get('metric')!r}; use one of {', '.join(metrics)}, "
            "or {} to turn autoscaling off.",
            param="autoscaling.metric",
        )
    if "target" not in policy:
        raise _wrong("target", f"a number from {LEAST_TARGET} to {MAX_TARGET:,}", None)
    for field in ("target", *_OF_METRIC[metric], "stabilization_seconds", "idle_seconds", "max_step"):
        if field in policy:
            _check(field, policy[field])
    if metric is Metric.CUSTOM and "custom_metric_name" not in policy:
        raise _wrong("custom_metric_name", "the name of a metric that the replicas show on /metrics", None)
    return policy


def policy_of(config: DeploymentConfig) -> Policy:
    """What a checked configuration asks for."""
    given = _current_form(config.autoscaling or {})
    policy = Policy(min_replicas=config.min_replicas, max_replicas=max(config.min_replicas, config.max_replicas or 0))
    try:
        metric = Metric(given["metric"])
    except (KeyError, ValueError):
        return policy
    model = given.get("model")
    return msgspec.structs.replace(
        policy,
        metric=metric,
        target=float(given["target"]),
        queue=None if model in (None, "", config.name) else str(model),
        custom_metric_name=given.get("custom_metric_name"),
        window_seconds=60 * float(given.get("time_interval_minutes", WINDOW_MINUTES)),
        stabilization_seconds=float(given.get("stabilization_seconds", STABILIZATION_SECONDS)),
        idle_seconds=float(given.get("idle_seconds", IDLE_SECONDS)),
        max_step=given.get("max_step"),
    )


def _current_form(given: dict[str, Any]) -> dict[str, Any]:
    """The older form in the words of the present one; where its target is no number, nothing."""
    if "profile" not in given:
        return given
    try:
        target = float(given.get("targetValue", 1))
    except (TypeError, ValueError):
        return {}
    return {"metric": given["profile"], "target": target} if LEAST_TARGET <= target <= MAX_TARGET else {}


def _check(field: str, value: object) -> None:
    if field not in _LIMITS:
        if not isinstance(value, str) or not 0 < len(value) <= 255:
            raise _wrong(field, "a text of at most 255 characters", value)
        return
    least, most = _LIMITS[field]
    kind = int if field == "max_step" else int | float
    if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:
        noun = "a whole number" if field == "max_step" else "a number"
        raise _wrong(field, f"{noun} from {least:,} to {most:,}", value)


def _wrong(field: str, what: str, value: object) -> InvalidRequest:
    but = "" if value is None else f", not {value!r}"
    return InvalidRequest(f"autoscaling.{field} must be {what}{but}.", param=f"autoscaling.{field}")
