"""How a rollout is judged: values in, verdict out, no clock and no network."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from fake_platform import CRASHED, READY, RUNNING, WAITING

from jig.live import headline
from jig.tracking import NO_REPLICA, NONE_MAY_RUN, Tracking, Verdict, describe, goes_on_serving, track


def deployment(*events: Mapping[str, str], revision: str = "rev-2", **values: object) -> dict[str, object]:
    own = {f"r-{at}": {"revision_id": "rev-2", **event} for at, event in enumerate(events)}
    variables = [{"name": "TOGETHER_DEPLOYMENT_REVISION_ID", "value": revision}]
    defaults = {"status": "Updating", "desired_replicas": 1, "min_replicas": 1}
    return {**defaults, "environment_variables": variables, "replica_events": own, **values}


def follow(*looks: Mapping[str, object], known: Tracking | None = None, step: float = 1.0) -> Tracking:
    tracking = known or Tracking("rev-2", started_at=0.0)
    for at, look in enumerate(looks):
        tracking = track(tracking, look, at * step)
    return tracking


def test_waiting_then_running_then_ready() -> None:
    tracking = follow(deployment(WAITING), deployment(RUNNING))
    assert tracking.verdict is Verdict.WAITING
    tracking = track(tracking, deployment(READY), 3.0)
    assert tracking.verdict is Verdict.READY
    assert tracking.reason == "1 of 1 replica"


def test_the_first_ready_replica_is_enough() -> None:
    tracking = follow(deployment(WAITING, READY, desired_replicas=2))
    assert tracking.verdict is Verdict.READY
    assert tracking.reason == "1 of 2 replicas"


def test_a_ready_replica_of_an_older_revision_does_not_count() -> None:
    old = {**READY, "revision_id": "rev-1"}
    tracking = follow(deployment(old, WAITING))
    assert tracking.verdict is Verdict.WAITING
    assert tracking.older == 1
    assert "1 replica of earlier revisions still there" in headline(tracking, 2.0)


def test_scaled_to_zero_is_ready_only_where_zero_was_asked_for() -> None:
    asked = partial(deployment, status="ScaledToZero", desired_replicas=0)
    assert follow(asked(min_replicas=0)).reason == NO_REPLICA
    barred = follow(asked(min_replicas=0, max_replicas=0))
    assert (barred.verdict, barred.reason) == (Verdict.READY, NONE_MAY_RUN)
    assert follow(asked(min_replicas=1)).verdict is Verdict.WAITING


def test_a_replica_that_drains_is_none_where_zero_was_asked_for() -> None:
    tracking = follow(deployment(READY, status="Scaling", desired_replicas=0, min_replicas=0))
    assert (tracking.verdict, tracking.reason) == (Verdict.READY, NO_REPLICA)


def test_what_serves_beside_a_failed_revision_is_named() -> None:
    old, older = {**READY, "revision_id": "rev-1"}, {**READY, "revision_id": "rev-0"}
    gone = {**READY, "revision_id": "rev-9", "replica_status": "Terminated"}
    assert goes_on_serving(deployment(CRASHED, old, gone), "rev-2") == "The revision before, rev-1, goes on serving."
    numbered: dict[str, Any] = {**old, "revision_number": 1}
    told = deployment(CRASHED, numbered)
    assert goes_on_serving(told, "rev-2") == "The revision before, 1 (rev-1), goes on serving."
    assert goes_on_serving(deployment(old, older), "rev-2") == "The revisions before, rev-0 and rev-1, go on serving."
    assert goes_on_serving(deployment(CRASHED, READY), "rev-2") is None
    assert goes_on_serving(deployment(old, revision="rev-3"), "rev-2") is None
    assert goes_on_serving(deployment(old), None) is None


def test_a_crash_loop_fails_with_the_replica() -> None:
    tracking = follow(deployment(CRASHED))
    assert tracking.verdict is Verdict.FAILED
    assert tracking.failed_replica == "r-0"
    assert "It exited with code 1." in tracking.reason


def test_running_but_not_ready_fails_after_its_timeout_and_not_before() -> None:
    known = Tracking("rev-2", started_at=0.0, ready_timeout_seconds=10.0)
    tracking = follow(deployment(WAITING), deployment(RUNNING), known=known, step=50.0)
    assert track(tracking, deployment(RUNNING), 60.0).verdict is Verdict.WAITING
    late = track(tracking, deployment(RUNNING), 61.0)
    assert late.verdict is Verdict.FAILED
    assert late.failed_replica == "r-0"


def test_a_restart_starts_the_timeout_again() -> None:
    known = Tracking("rev-2", started_at=0.0, ready_timeout_seconds=10.0)
    tracking = follow(deployment(RUNNING), deployment(WAITING), deployment(RUNNING), known=known, step=9.0)
    assert track(tracking, deployment(RUNNING), 27.0).verdict is Verdict.WAITING


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImagePull"])
def test_an_image_that_cannot_be_pulled_gets_some_patience(reason: str) -> None:
    event = {"replica_status": "Waiting", "replica_status_reason": reason, "replica_status_message": "no such tag"}
    tracking = follow(deployment(event), deployment(event), step=29.0)
    assert tracking.verdict is Verdict.WAITING
    tracking = track(tracking, deployment(event), 31.0)
    assert tracking.verdict is Verdict.FAILED
    assert "no such tag" in tracking.reason


def test_a_failed_deployment_says_why() -> None:
    tracking = follow(deployment(WAITING, status="Failed", status_message="No GPU is free."))
    assert (tracking.verdict, tracking.reason) == (Verdict.FAILED, "No GPU is free.")


def test_only_a_replica_of_the_failed_revision_can_tell_why() -> None:
    older = {"r-old": {**READY, "revision_id": "rev-1"}}
    own = {"r-new": {"replica_status": "Waiting", "replica_status_reason": "ErrImagePull", "revision_id": "rev-2"}}
    assert follow(deployment(status="Failed", replica_events=older)).failed_replica is None
    assert follow(deployment(status="Failed", replica_events=older | own)).failed_replica == "r-new"


def test_a_replica_that_had_ended_before_is_none_of_this_rollout() -> None:
    ended = {"replica_status": "Terminated", "revision_id": "rev-2"}
    known = follow(deployment(WAITING, replica_events={"r-0": ended, "r-1": {**WAITING, "revision_id": "rev-2"}}))
    assert [replica.id for replica in known.replicas] == ["r-1"]
    after = follow(deployment(replica_events={"r-1": ended}), known=known)
    assert [(replica.id, replica.status) for replica in after.replicas] == [("r-1", "Terminated")]
    drained = {**ended, "replica_status_reason": "Completed"}
    assert follow(deployment(replica_events={"r-1": drained}), known=known).replicas == ()


def test_a_replica_that_drains_is_none_of_a_rollout_that_goes_back_to_its_revision() -> None:
    draining = {**RUNNING, "replica_status_reason": "Draining", "revision_id": "rev-2"}
    new = {**WAITING, "revision_id": "rev-2"}
    tracking = follow(*[deployment(replica_events={"r-old": draining, "r-new": new})] * 2, step=200.0)
    assert [replica.id for replica in tracking.replicas] == ["r-new"]
    assert (tracking.verdict, tracking.older) == (Verdict.WAITING, 1)


def test_the_whole_has_an_end() -> None:
    tracking = follow(deployment(), deployment(status_message="Waiting for a GPU."), step=601.0)
    assert tracking.verdict is Verdict.FAILED
    assert tracking.reason == "No replica was ready after 10m. Waiting for a GPU."


def test_another_deploy_ends_it() -> None:
    assert follow(deployment(WAITING, revision="rev-3")).verdict is Verdict.FAILED


def test_a_volume_that_loads_is_said() -> None:
    tracking = follow(deployment({"replica_status": "Waiting", "volume_preload_status": "InProgress"}))
    assert describe(tracking.replicas[0]) == "waiting: loading its volume"


def test_a_platform_that_does_not_say_its_revision_is_followed_all_the_same() -> None:
    bare = {"status": "Ready", "desired_replicas": 1, "replica_events": {"r-0": READY}}
    assert track(Tracking(None, 0.0), bare, 1.0).verdict is Verdict.READY
