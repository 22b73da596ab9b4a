"""Rollouts under load, as processes and in containers: no request fails and no job is lost, whatever the revisions do.

`MACHINESHOP_DRILL_ROLLOUTS` says how many; in a usual run they are few, so that they fit into the time of one.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.container_clients import need_docker
from platform_process import PlatformProcess, wait_for, write_worker
from worker_image import build, left_of, remove

pytestmark = pytest.mark.timeout(600)

ROLLOUTS = int(os.environ.get("MACHINESHOP_DRILL_ROLLOUTS", "3"))
NAME = "rolling"
REPLICAS = 2
ROLLOUT_SECONDS = 90.0
WORKER = """
import os, time
import sprocket

class Worker(sprocket.Sprocket):
    concurrency = 8

    def setup(self):
        if os.environ.get("BROKEN"):
            raise ValueError("this revision is broken")

    def predict(self, args):
        time.sleep(0.02)
        return {"number": args["number"], "version": os.environ.get("VERSION", "0")}
"""
TABLES = f"""
[deploy]
memory = 1
min_replicas = {REPLICAS}
max_replicas = {REPLICAS}
termination_grace_period_seconds = 30
"""


class Load:
    """Jobs and requests that come in all the time."""

    def __init__(self, platform: PlatformProcess) -> None:
        self._platform = platform
        self._end = threading.Event()
        self.jobs: dict[str, int] = {}
        self.answered: list[int] = []
        self.failures: list[str] = []

    @contextmanager
    def of(self, *kinds: str) -> Iterator[None]:
        """Run these kinds of load meanwhile."""
        threads = [threading.Thread(target=getattr(self, kind), name=kind, daemon=True) for kind in kinds]
        for thread in threads:
            thread.start()
        yield
        self._end.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), f"{thread.name} goes on"

    def submit(self) -> None:
        """Jobs; one that the platform has not acknowledged is submitted again, under the same key."""
        number = 0
        while not self._end.is_set():
            body = {"model": NAME, "payload": {"number": number}, "idempotency_key": str(number)}
            try:
                with self._platform.client() as client:
                    answer = client.post("/v1/queue/submit", json=body)
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                self.jobs[answer.json()["request_id"]] = number
                number += 1
            elif answer.status_code != 503:
                self.failures.append(f"submit: {answer.status_code} {answer.text}")
            time.sleep(0.02)

    def request(self) -> None:
        """Requests through the gateway; one that finds all of the worker's slots taken is tried again."""
        number = 0
        with self._platform.client() as client:
            while not self._end.is_set():
                try:
                    answer = client.post(f"/v1/deployment-request/{NAME}/generate", json={"number": number})
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.status_code == 503 and answer.json()["error"].get("code") == "busy":
                    continue
                if answer.status_code != 200 or answer.json()["number"] != number:
                    self.failures.append(f"request {number}: {answer.status_code} {answer.text[:300]}")
                self.answered.append(number)
                number += 1


@pytest.fixture(params=["process", "docker"])
def rolling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PlatformProcess]:
    """A platform of this runtime, with a deployment whose replicas are ready."""
    if request.param == "docker":
        need_docker()
    platform = PlatformProcess(tmp_path, "--runtime", request.param)
    platform.start()
    folder = write_worker(tmp_path / NAME, NAME, WORKER, tables=TABLES)
    image: str | None = None
    if request.param == "process":
        platform.deploy(folder)
    else:
        (tmp_path / "image").mkdir()
        image = build(tmp_path / "image", f"{WORKER}\nsprocket.run(Worker())\n")
        with (folder / "jig.toml").open("a") as config:
            config.write('command = ["python3", "worker.py", "--queue"]\ngpu_type = "none"\ngpu_count = 0\n')
        platform.jig("deploy", "--image", image, cwd=folder)
    wait_for(lambda: platform.deployment(NAME)["ready_replicas"] == REPLICAS, "all replicas are ready", 60)
    yield platform
    platform.close()
    if image is not None:
        assert left_of(platform) == []
        remove(image)


def test_rollouts_under_load_fail_no_request_and_lose_no_job(rolling: PlatformProcess) -> None:
    load = Load(rolling)
    with load.of("submit", "request", "request"):
        for number in range(1, ROLLOUTS + 1):
            if number == ROLLOUTS // 2 + 1:
                _change(rolling, VERSION=str(number), BROKEN="1")
                wait_for(lambda: rolling.deployment(NAME)["status"] == "Failed", "it fails", ROLLOUT_SECONDS)
                assert rolling.deployment(NAME)["ready_replicas"] == REPLICAS, "the revision before goes on serving"
            else:
                _change(rolling, VERSION=str(number))
                wait_for(lambda: _is_rolled_out(rolling), f"rollout {number} is over", ROLLOUT_SECONDS)
    assert load.failures == []
    assert len(load.answered) > 10 * ROLLOUTS
    _check(rolling, load)


def test_kill_9_of_the_server_in_the_middle_of_a_rollout(rolling: PlatformProcess) -> None:
    load = Load(rolling)
    with load.of("submit"):
        _change(rolling, VERSION="killed")
        wait_for(lambda: _is_under_way(rolling), "the rollout is under way", ROLLOUT_SECONDS)
        rolling.kill()
        rolling.start()
        wait_for(lambda: _is_rolled_out(rolling), "the rollout goes on to its end", ROLLOUT_SECONDS)
    assert load.failures == []
    _check(rolling, load)


def _change(platform: PlatformProcess, **variables: str) -> None:
    body = {"environment_variables": [{"name": name, "value": value} for name, value in variables.items()]}
    with platform.client() as client:
        answer = client.patch(f"/v1/deployments/{NAME}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "Updating"


def _replicas(platform: PlatformProcess) -> tuple[str, list[dict[str, Any]]]:
    deployment = platform.deployment(NAME)
    events = deployment["replica_events"].values()
    return deployment["revision_id"], [event for event in events if event["replica_status"] != "Terminated"]


def _is_rolled_out(platform: PlatformProcess) -> bool:
    revision, replicas = _replicas(platform)
    ready = [event for event in replicas if event["revision_id"] == revision and event["replica_ready_since"]]
    return len(ready) == REPLICAS and len(replicas) == REPLICAS


def _is_under_way(platform: PlatformProcess) -> bool:
    revision, replicas = _replicas(platform)
    return any(event["revision_id"] == revision for event in replicas)


def _check(platform: PlatformProcess, load: Load) -> None:
    """Every job that was acknowledged is done, with its own result."""
    assert load.jobs
    with platform.client() as client:
        wait_for(
            lambda: client.get("/v1/queue/metrics", params={"model": NAME}).json()["total_jobs"] == 0,
            "every job has ended",
            120,
        )
        ids = list(load.jobs)
        for first in range(0, len(ids), 500):
            body = {"model": NAME, "request_ids": ids[first : first + 500], "include": "outputs"}
            for job in client.post("/v1/queue/results", json=body).json()["data"]:
                assert job["status"] == "done", job
                assert job["outputs"]["number"] == load.jobs[job["request_id"]]
