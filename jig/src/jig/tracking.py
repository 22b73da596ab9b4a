"""How a deployment comes up, decided from its JSON and the time. Pure: no clock, no network.

`track` takes what was known, the deployment and now, and returns what is known then: a Tracking whose verdict is
WAITING until it is READY or FAILED.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from jig.deployment import revision_name, revision_of
from jig.units import coarse, count

READY_TIMEOUT_SECONDS = 120.0  # a replica that runs gets ready within this, or something is wrong
PREPARE_SECONDS = 480.0  # fetching an image or making an environment, before any replica runs
# The registry may be slow to answer a first pull; a reference that is wrong stays wrong.
IMAGE_PULL_TIMEOUT_SECONDS = 30.0
DRAINING = "Draining"
CRASH_REASONS = frozenset({"CrashLoopBackOff"})
IMAGE_REASONS = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName"})


NO_REPLICA = "none runs: a job or a request starts one"
NONE_MAY_RUN = "no replica may run: max_replicas is 0"


class Verdict(Enum):
    """What tracking says."""

    WAITING = "not ready yet"
    READY = "serving, or without a replica as asked"
    FAILED = "it will not get ready by itself"


@dataclass(frozen=True)
class Replica:
    """One replica of the revision that is coming up.

    Args:
        id: as the platform names it.
        status: Running, Waiting or Terminated.
        reason: why, in one word, or empty.
        message: why, in a sentence, or empty.
        is_ready: it serves.
        since: when it was first seen like this, in seconds of the tracker's clock.
    """

    id: str
    status: str
    reason: str
    message: str
    is_ready: bool
    since: float

    @property
    def state(self) -> str:
        """One word or two for a person."""
        if self.is_ready:
            return "ready"
        return "starting" if self.status == "Running" else self.status.lower()


@dataclass(frozen=True)
class Tracking:
    """What is known about a rollout.

    Args:
        revision: its ID; None where the platform doesn't say, then every replica counts.
        started_at: seconds of the caller's clock.
        ready_timeout_seconds: how long a replica may run without getting ready.
        replicas: of this revision.
        older: how many replicas of earlier revisions are still there.
        verdict: the decision.
        reason: why it failed, or how it is ready; one sentence.
        failed_replica: whose logs tell more, or None.
    """

    revision: str | None
    started_at: float
    ready_timeout_seconds: float = READY_TIMEOUT_SECONDS
    replicas: tuple[Replica, ...] = field(default=())
    older: int = 0
    verdict: Verdict = Verdict.WAITING
    reason: str = ""
    failed_replica: str | None = None

    @property
    def limit_seconds(self) -> float:
        """How long the whole may take."""
        return PREPARE_SECONDS + self.ready_timeout_seconds

    def failed(self, reason: str, replica: str | None = None) -> Tracking:
        """The same, given up."""
        return replace(self, verdict=Verdict.FAILED, reason=reason, failed_replica=replica)

    def ready(self, reason: str) -> Tracking:
        """The same, done."""
        return replace(self, verdict=Verdict.READY, reason=reason)


def track(known: Tracking, deployment: Mapping[str, Any], now: float) -> Tracking:
    """What is known after one more look at the deployment."""
    revision = revision_of(deployment)
    if known.revision and revision and revision != known.revision:
        if reason := rolled_back(deployment, known.revision):
            return known.failed(reason, deployment["last_failure"].get("replica_id"))
        return known.failed("Another deploy has replaced this one.")
    events = deployment.get("replica_events") or {}
    earlier = {replica.id: replica for replica in known.replicas}
    own = {
        key: event
        for key, event in events.items()
        if known.revision in (None, event.get("revision_id")) and not is_past(event, is_known=key in earlier)
    }
    replicas = tuple(look(key, event, earlier.get(key), now) for key, event in sorted(own.items()))
    seen = replace(known, replicas=replicas, older=len(events) - len(own))
    return decide(seen, deployment, now)


def is_past(event: Mapping[str, Any], *, is_known: bool) -> bool:
    """True for a replica that ran the revision at an earlier time, which a rollback runs again.

    It drains, had ended before the first look, or has ended as it was asked to.
    """
    if event.get("replica_status_reason") == DRAINING:
        return True
    has_ended = event.get("replica_status") == "Terminated"
    return has_ended and (not is_known or event.get("replica_status_reason") == "Completed")


def rolled_back(deployment: Mapping[str, Any], revision: str) -> str | None:
    """Why the platform went back from this revision to an earlier one, or None where it did not."""
    failure = deployment.get("last_failure") or {}
    back = went_back(deployment, revision)
    return back and f"{failure.get('reason')}: {failure.get('message')} {back}"


def is_settled(deployment: Mapping[str, Any], revision: str | None) -> bool:
    """True once the platform has said that this revision failed, and has gone back from it where it does so."""
    failure = deployment.get("last_failure") or {}
    goes_back = failure.get("rolled_back") and revision_of(deployment) == revision
    return failure.get("revision_id") == revision and not goes_back


def went_back(deployment: Mapping[str, Any], revision: str | None) -> str | None:
    """To which revision the platform went back from this one, in a sentence; None where it did not."""
    rolled_back = (deployment.get("last_failure") or {}).get("rolled_back")
    if revision is None or not rolled_back or not is_settled(deployment, revision):
        return None
    return f"The platform went back to revision {named_revision(deployment, revision_of(deployment))}."


def look(key: str, event: Mapping[str, Any], earlier: Replica | None, now: float) -> Replica:
    """One replica, with the time since when it has been like this."""
    status = str(event.get("replica_status") or "Waiting")
    reason = str(event.get("replica_status_reason") or "")
    message = str(event.get("replica_status_message") or "")
    is_ready = status == "Running" and bool(event.get("replica_ready_since"))
    if event.get("volume_preload_status") == "InProgress" and not reason:
        reason = "loading its volume"
    same = earlier is not None and (earlier.status, earlier.is_ready) == (status, is_ready)
    return Replica(key, status, reason, message, is_ready, earlier.since if same and earlier else now)


def decide(seen: Tracking, deployment: Mapping[str, Any], now: float) -> Tracking:
    """The verdict on what was seen: success first, then the reasons to give up, the surest first."""
    desired = deployment.get("desired_replicas") or 0
    if desired == 0 and deployment.get("min_replicas") == 0:
        return seen.ready(
            NONE_MAY_RUN if deployment.get("max_replicas") == 0 else NO_REPLICA
        )  # those that there still are drain
    ready = sum(replica.is_ready for replica in seen.replicas)
    if ready:
        return seen.ready(f"{ready} of {count(max(desired, ready), 'replica')}")
    for replica in seen.replicas:
        if reason := give_up(replica, seen.ready_timeout_seconds, now):
            return seen.failed(reason, replica.id)
    status_message = deployment.get("status_message")
    first = next((replica.id for replica in seen.replicas), None)
    if deployment.get("status") == "Failed":
        return seen.failed(str(status_message or "The platform gave the deployment up."), first)
    if now - seen.started_at > seen.limit_seconds:
        because = f" {status_message}" if status_message else ""
        return seen.failed(f"No replica was ready after {coarse(seen.limit_seconds)}.{because}", first)
    return replace(seen, reason=str(status_message or ""))


def give_up(replica: Replica, ready_timeout_seconds: float, now: float) -> str | None:
    """Why this replica will not get ready, or None while it still may."""
    age_seconds = now - replica.since
    because = f": {replica.message}" if replica.message else "."
    if replica.reason in CRASH_REASONS:
        return f"Replica {replica.id} crashes again and again{because}"
    if replica.reason in IMAGE_REASONS and age_seconds > IMAGE_PULL_TIMEOUT_SECONDS:
        return f"Replica {replica.id} cannot get its image{because}"
    if replica.status == "Running" and age_seconds > ready_timeout_seconds:
        return f"Replica {replica.id} has been running for {coarse(age_seconds)} and is not ready{because}"
    return None


def serving(deployment: Mapping[str, Any]) -> set[str]:
    """The revisions that have a ready replica."""
    events = (deployment.get("replica_events") or {}).values()
    return {str(each.get("revision_id")) for each in events if each.get("replica_ready_since") and is_running(each)}


def goes_on_serving(deployment: Mapping[str, Any], failed: str | None) -> str | None:
    """One sentence about the earlier revisions that serve although this one failed, or None where there are none.

    Args:
        deployment: as the platform tells it.
        failed: the revision that did not get ready; nothing is said where the platform names none, or wants another.
    """
    if failed is None or revision_of(deployment) != failed:
        return None
    earlier = sorted(named_revision(deployment, revision) for revision in serving(deployment) - {failed})
    if not earlier:
        return None
    if len(earlier) > 1:
        return f"The revisions before, {' and '.join(earlier)}, go on serving."
    return f"The revision before, {earlier[0]}, goes on serving."


def is_running(event: Mapping[str, Any]) -> bool:
    """True for a replica that is there."""
    return event.get("replica_status") == "Running"


def named_revision(deployment: Mapping[str, Any], revision: object) -> str:
    """`14 (7d675543)`: a revision of this deployment; without its number where the deployment does not tell it."""
    failure = deployment.get("last_failure") or {}
    events = (deployment.get("replica_events") or {}).values()
    numbers = {each.get("revision_id"): each.get("revision_number") for each in (*events, failure)}
    numbers[revision_of(deployment)] = deployment.get("revision_number")
    return revision_name(numbers.get(str(revision)), revision)


def describe(replica: Replica) -> str:
    """A replica's state with its reason, in one line."""
    why = replica.message or replica.reason
    return f"{replica.state}: {why}" if why and not replica.is_ready else replica.state
