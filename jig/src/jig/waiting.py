"""Why a job waits, and until when: told by the platform, or from its deployment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jig.units import count, moment, roughly

SOON_SECONDS = 1.0
DEEP = "behind more than 10,000 others"  # the platform counts no further


def place_text(queue: Mapping[str, Any]) -> str:
    """Where in line a job is: `position 3`; empty where that is not told.

    Args:
        queue: the `queue` of the job's status.
    """
    if "position" not in queue:
        return ""
    position = queue["position"]
    return DEEP if position is None else f"position {position:,}"


def why_text(queue: Mapping[str, Any]) -> str:
    """Why a job waits, in the platform's sentence."""
    return str(queue.get("message") or queue.get("reason") or "")


def clause(sentence: str) -> str:
    """A sentence as part of another: without its full stop, its first letter small where it is an ordinary word's."""
    first, rest = sentence[:1], sentence[1:].rstrip(".")
    is_ordinary = rest[:1].islower() or rest[:1] == " "
    return (first.lower() if is_ordinary else first) + rest


def estimate_text(queue: Mapping[str, Any], now: datetime, *, with_source: bool = False) -> str:
    """When a job may start: `starts in about 4 min (2 min to 9 min)`; empty where that is not known.

    Args:
        queue: the `queue` of the job's status.
        now: the time.
        with_source: say also what the estimate rests on.
    """
    estimate = queue.get("estimate") or {}
    start_at = moment(estimate.get("start_at"))
    if start_at is None:
        return ""
    ahead = (start_at - now).total_seconds()
    about = f"in about {roughly(ahead)}" if ahead > SOON_SECONDS else "any moment"
    text = f"{about}{interval_text(estimate, now)}" if with_source else f"starts {about}{interval_text(estimate, now)}"
    jobs = estimate.get("from_jobs")
    return f"{text}, going by the last {count(jobs, 'job')}" if with_source and jobs else text


def interval_text(estimate: Mapping[str, Any], now: datetime) -> str:
    """The estimate's bounds, ` (2 min to 9 min)`, where they differ."""
    earliest, latest = (bound_text(estimate.get(key), now) for key in ("earliest_at", "latest_at"))
    return f" ({earliest} to {latest})" if earliest and latest and earliest != latest else ""


def bound_text(timestamp: str | None, now: datetime) -> str:
    """How far away a bound is: `2 min`, or `now`."""
    bound = moment(timestamp)
    if bound is None:
        return ""
    ahead = (bound - now).total_seconds()
    return roughly(ahead) if ahead > SOON_SECONDS else "now"


def why_pending(deployment: Mapping[str, Any]) -> str:
    """One line: `pending: no replica is ready (Failed: ...)`."""
    return f"pending: {reason(deployment)}"


def has_ready_replica(deployment: Mapping[str, Any]) -> bool:
    """True where somebody may take the job."""
    return bool(deployment.get("ready_replicas"))


def reason(deployment: Mapping[str, Any]) -> str:
    """What keeps a job of this deployment from being taken, as far as its replicas tell."""
    ready = deployment.get("ready_replicas") or 0
    if ready == 1:
        return "1 replica is ready and busy, or does not work the queue (its command needs --queue)"
    if ready:
        return f"{count(ready, 'replica')} are ready and busy, or do not work the queue (their command needs --queue)"
    if not deployment.get("desired_replicas"):
        if deployment.get("max_replicas") == 0:
            return f"no replica may run: max_replicas is 0. {to_let_one_run(deployment['name'])}"
        return "no replica runs: the platform starts one when it sees the job"
    message = " ".join(str(deployment.get("status_message") or "").split()).rstrip(".")
    status = str(deployment.get("status") or "")
    return f"no replica is ready ({': '.join(part for part in (status, message) if part)})"


def to_let_one_run(name: str) -> str:
    """What to do about a deployment that may have no replica."""
    return f"To let one run: jig scale {name} --max 1"
