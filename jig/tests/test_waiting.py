"""Why a submitted job waits: said once there is reason to, and again when it is another."""

import subprocess
from pathlib import Path

import pytest
from fake_platform import READY, WAITING, FakePlatform
from jig_process import Jig, finish

from jig.waiting import why_pending

NOBODY = "pending: no replica runs: the platform starts one when it sees the job"
CRASHES = "CrashLoopBackOff: It ended {} times. Its last line: no weights."


def failed(times: int) -> dict[str, object]:
    return {"status": "Failed", "status_message": CRASHES.format(times), "desired_replicas": 1, "ready_replicas": 0}


@pytest.mark.parametrize(
    ("deployment", "expected"),
    [
        ({"status": "ScaledToZero", "desired_replicas": 0, "ready_replicas": 0}, NOBODY),
        (
            {"name": "hello", "status": "ScaledToZero", "desired_replicas": 0, "min_replicas": 0, "max_replicas": 0},
            "pending: no replica may run: max_replicas is 0. To let one run: jig scale hello --max 1",
        ),
        (failed(2), f"pending: no replica is ready (Failed: {CRASHES.format(2).rstrip('.')})"),
        ({"status": "Updating", "desired_replicas": 1}, "pending: no replica is ready (Updating)"),
        (
            {
                "status": "Failed",
                "desired_replicas": 1,
                "status_message": "uv failed:\n  cause: no network\n\nhint: mend it.",
            },
            "pending: no replica is ready (Failed: uv failed: cause: no network hint: mend it)",
        ),
        (
            {"ready_replicas": 1},
            "pending: 1 replica is ready and busy, or does not work the queue (its command needs --queue)",
        ),
        (
            {"ready_replicas": 2},
            "pending: 2 replicas are ready and busy, or do not work the queue (their command needs --queue)",
        ),
    ],
    ids=["none asked for", "none may be", "failed", "updating", "in several lines", "one ready", "two ready"],
)
def test_the_reason_is_the_deployments(deployment: dict[str, object], expected: str) -> None:
    assert why_pending(deployment) == expected


@pytest.fixture
def deployed(platform: FakePlatform, project: Path) -> FakePlatform:
    """A platform on which the project is deployed, and a job that waits."""
    platform.rollout = [WAITING]
    platform.job_states = [{"status": "pending"}]
    platform.deploy("hello")
    return platform


def next_reason(process: subprocess.Popen[str]) -> str:
    """The next line that says why the job waits."""
    assert process.stderr is not None
    for line in process.stderr:
        if "pending: " in line:
            return line
    raise AssertionError("jig has ended without saying why")


def test_a_watch_says_why_the_job_waits_and_again_when_that_changes(jig: Jig, deployed: FakePlatform) -> None:
    deployed.told = {"status": "ScaledToZero", "desired_replicas": 0}
    with jig.start("submit", "--prompt", "x", "--watch") as process:
        assert NOBODY in next_reason(process)
        assert len(deployed.sent("GET", "/v1/deployments/hello")) == 1  # not before there was reason to
        deployed.told = failed(2)
        assert "no replica is ready (Failed: CrashLoopBackOff: It ended 2 times." in next_reason(process)
        deployed.told = failed(3)  # the same with another number: nothing new
        looks = len(deployed.sent("GET", "/v1/deployments/hello"))
        while len(deployed.sent("GET", "/v1/deployments/hello")) < looks + 2:
            assert process.poll() is None
        deployed.told = {"ready_replicas": 1}
        assert "1 replica is ready and busy" in next_reason(process)
        deployed.job_states = [{"status": "done", "outputs": {"text": "hi"}}]
        finished = finish(process)
    assert (finished.code, finished.json) == (0, {"text": "hi"})


def test_a_submit_says_at_once_that_nobody_is_there(jig: Jig, deployed: FakePlatform) -> None:
    deployed.told = failed(2)
    finished = jig("submit", "--prompt", "x")
    assert (finished.code, finished.out) == (0, "job-1\n")
    assert finished.err.splitlines()[-1].startswith("pending: no replica is ready (Failed: CrashLoopBackOff")
    finished = jig("submit", "--prompt", "x", "--json")
    assert (finished.json["request_id"], finished.err) == ("job-1", "")


def test_a_submit_to_ready_replicas_says_nothing_of_them(jig: Jig, deployed: FakePlatform) -> None:
    deployed.rollout = [READY]
    assert "pending" not in jig("submit", "--prompt", "x").err


def test_a_key_that_may_not_see_the_deployment_may_submit(jig: Jig, deployed: FakePlatform) -> None:
    deployed.failures = [("/v1/deployments/hello", 403)]
    finished = jig("submit", "--prompt", "x")
    assert (finished.code, finished.out) == (0, "job-1\n")
    assert "unwell" not in finished.err
