"""A deployment's status, from values alone."""

from typing import Any

import msgspec
import pytest

from machineshop.models import Deployment
from machineshop.runtime.base import Replica, ReplicaStatus
from machineshop.services.deployment_rules import parse
from machineshop.services.status import standing
from machineshop.states import DeploymentStatus

NOW = 1_000_000.0


def a_deployment(replicas: int = 1) -> Deployment:
    return Deployment(
        id="d",
        project_id="p",
        config=parse({"name": "hello", "image": "i", "gpu_type": "none", "min_replicas": replicas}),
        revision_id="new",
        revision_number=2,
        created_at=NOW,
        updated_at=NOW,
    )


def a_replica(**changes: Any) -> Replica:
    replica = Replica(
        id="r", deployment_id="d", revision_id="new", image="i", status=ReplicaStatus.RUNNING, created_at=NOW - 10
    )
    return msgspec.structs.replace(replica, **changes)


READY = a_replica(started_at=NOW - 9, ready_since=NOW - 5)
STARTING = a_replica(id="r2", started_at=NOW - 9)
OLD = a_replica(id="old", revision_id="old", started_at=NOW - 99, ready_since=NOW - 90)
HICCUP = a_replica(id="h", status=ReplicaStatus.WAITING, reason="ErrImagePull", message="the registry is away")
CRASHING = a_replica(id="c", status=ReplicaStatus.WAITING, reason="CrashLoopBackOff", message="exit code 1")


@pytest.mark.parametrize(
    ("wanted", "replicas", "status"),
    [
        (1, [], DeploymentStatus.UPDATING),
        (1, [STARTING], DeploymentStatus.UPDATING),
        (1, [READY], DeploymentStatus.READY),
        (2, [READY, STARTING], DeploymentStatus.SCALING),
        (1, [OLD], DeploymentStatus.UPDATING),
        (1, [OLD, STARTING], DeploymentStatus.UPDATING),
        (2, [OLD, READY], DeploymentStatus.UPDATING),
        (1, [OLD, CRASHING], DeploymentStatus.FAILED),
        (1, [CRASHING], DeploymentStatus.FAILED),
        (1, [HICCUP], DeploymentStatus.UPDATING),
        (1, [msgspec.structs.replace(HICCUP, reason="ImagePullBackOff")], DeploymentStatus.FAILED),
        (0, [], DeploymentStatus.SCALED_TO_ZERO),
        (0, [READY], DeploymentStatus.SCALING),
        (1, [msgspec.structs.replace(READY, draining=True)], DeploymentStatus.UPDATING),
        (1, [msgspec.structs.replace(READY, status=ReplicaStatus.TERMINATED)], DeploymentStatus.UPDATING),
    ],
)
def test_status(wanted: int, replicas: list[Replica], status: DeploymentStatus) -> None:
    state = standing(a_deployment(wanted), replicas, NOW)
    assert state.status is status
    assert (state.message is None) == (status is DeploymentStatus.READY)


@pytest.mark.parametrize(
    ("replicas", "message"),
    [([READY], "1 replica is draining."), ([READY, STARTING], "2 replicas are draining.")],
    ids=["one", "two"],
)
def test_the_message_says_how_many_drain(replicas: list[Replica], message: str) -> None:
    assert standing(a_deployment(0), replicas, NOW).message == message


def test_the_message_says_what_is_missing() -> None:
    failed = standing(a_deployment(), [CRASHING], NOW)
    assert "CrashLoopBackOff: exit code 1" in (failed.message or "")
    slow = standing(a_deployment(), [STARTING], NOW + 300)
    assert "health check" in (slow.message or "")
    assert "$PORT" in (slow.message or "")
