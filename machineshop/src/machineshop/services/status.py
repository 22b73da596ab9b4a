"""How a deployment is doing. Pure: the deployment, its replicas as the runtime sees them, and the time."""

from collections.abc import Sequence

import msgspec

from machineshop.models import Deployment
from machineshop.runtime.base import Replica, ReplicaStatus
from machineshop.states import DeploymentStatus

# Reasons that will not mend by waiting.
BROKEN_REASONS = frozenset(
    {"CrashLoopBackOff", "ImagePullBackOff", "CreateContainerConfigError", "CreateContainerError"}
)
# A model of hundreds of gigabytes may load for minutes, so until then a replica that is not ready is only starting.
SLOW_START_SECONDS = 120.0


class Standing(msgspec.Struct, frozen=True):
    """A deployment's status with a sentence that explains it."""

    status: DeploymentStatus
    message: str | None
    desired_replicas: int
    ready_replicas: int


def standing(deployment: Deployment, replicas: Sequence[Replica], now: float) -> Standing:
    """What to tell of a deployment."""
    desired = deployment.replicas
    live = [replica for replica in replicas if replica.status is not ReplicaStatus.TERMINATED]
    current = [replica for replica in live if replica.revision_id == deployment.revision_id and not replica.draining]
    ready = sum(replica.ready_since is not None for replica in current)
    serving = sum(replica.ready_since is not None and not replica.draining for replica in live)
    status, message = _judge(desired, live, current, ready, now)
    if status is DeploymentStatus.SCALED_TO_ZERO and deployment.config.max_replicas:
        message = "No replica runs while there is nothing to do; a job or a request starts one."
    return Standing(status, message, desired, serving)


def _judge(
    desired: int, live: list[Replica], current: list[Replica], ready: int, now: float
) -> tuple[DeploymentStatus, str | None]:
    if desired == 0:
        if not live:
            return DeploymentStatus.SCALED_TO_ZERO, "No replica is asked for: max_replicas is 0."
        draining = "1 replica is draining" if len(live) == 1 else f"{len(live)} replicas are draining"
        return DeploymentStatus.SCALING, f"{draining}."
    if ready >= desired:
        return DeploymentStatus.READY, None
    broken = next((replica for replica in current if replica.reason in BROKEN_REASONS), None)
    if broken is not None:
        return DeploymentStatus.FAILED, f"{broken.reason}: {broken.message or 'see its logs'}"
    message = _what_is_missing(desired, current, ready, now)
    superseded = any(replica not in current and not replica.draining for replica in live)
    if ready == 0 or superseded:
        return DeploymentStatus.UPDATING, message
    return DeploymentStatus.SCALING, message


def _what_is_missing(desired: int, current: list[Replica], ready: int, now: float) -> str:
    waiting = next((replica for replica in current if replica.ready_since is None), None)
    count = f"{ready} of {desired} replicas are ready"
    if waiting is None:
        return f"{count}; the next one is about to start."
    if waiting.status is ReplicaStatus.WAITING:
        return f"{count}; {waiting.id} waits: {waiting.message or 'it is about to start.'}"
    running_seconds = now - (waiting.started_at or now)
    if running_seconds > SLOW_START_SECONDS:
        return (
            f"{count}; {waiting.id} has been running for {running_seconds:.0f} s and its health check does not answer "
            "200: see its logs, and check health_check_path and that it listens on $PORT."
        )
    return f"{count}; {waiting.id} is starting."
