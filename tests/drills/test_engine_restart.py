"""The container engine is restarted under running replicas: what was in hand is done once, and nothing is left over."""

import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.container_clients import ContainerClients, need_docker
from docker_daemon import DockerDaemon
from platform_process import PlatformProcess, wait_for
from worker_image import build, docker, remove

pytestmark = pytest.mark.timeout(240)

NAME = "survivor"
JOBS = 12
REPLICAS = 2
AGAIN_SECONDS = 90.0
MINE = ("--filter", "label=machineshop.instance")
WAITS = "the start waits for it"
WORKER = """
import os, time
import sprocket

class Worker(sprocket.Sprocket):
    concurrency = 2

    def predict(self, args):
        time.sleep(2.0)
        return {"number": args["number"]}

sprocket.run(Worker())
"""
CONFIG = f"""
name = "{NAME}"
[deploy]
gpu_type = "none"
gpu_count = 0
memory = 0.5
cpu = 0.5
command = ["python3", "worker.py", "--queue"]
min_replicas = {REPLICAS}
max_replicas = {REPLICAS}
termination_grace_period_seconds = 20
"""


@pytest.fixture
def daemon() -> Iterator[DockerDaemon]:
    """An engine to be killed."""
    need_docker()
    daemon = DockerDaemon()
    daemon.start()
    yield daemon
    daemon.remove()


@pytest.fixture
def shop(tmp_path: Path, daemon: DockerDaemon) -> Iterator[PlatformProcess]:
    """A platform with a deployment on that engine, whose image lies in the platform's own registry."""
    platform = PlatformProcess(tmp_path, "--runtime", "docker")
    platform.environment["DOCKER_HOST"] = daemon.endpoint
    platform.start()
    folder = tmp_path / NAME
    folder.mkdir()
    image = build(folder, WORKER)
    with tempfile.TemporaryDirectory(prefix="clients-") as home:
        clients = ContainerClients(platform, Path(home))
        clients.login("docker")
        pushed = f"{clients.namespace}/{NAME}:v1"
        docker("tag", image, pushed)
        clients.docker("push", pushed)
    remove(image)
    (folder / "jig.toml").write_text(CONFIG)
    platform.jig("deploy", "--image", pushed, cwd=folder)
    yield platform
    platform.close()


def test_an_engine_that_is_killed_or_stopped_and_comes_back_loses_no_job(
    shop: PlatformProcess, daemon: DockerDaemon
) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        jobs = [shop.submit(NAME, {"number": each}) for each in range(JOBS)]
        wait_for(lambda: _in_hand(shop, jobs), "jobs are in hand")  # noqa: B023 - called at once
        daemon.stop(number)
        daemon.start()
        for each, job in enumerate(jobs):
            ended = shop.finished(NAME, job, AGAIN_SECONDS)
            assert (ended["status"], ended["outputs"]["number"]) == ("done", each), ended
        wait_for(lambda: _ready(shop) == REPLICAS, "all replicas are ready again", AGAIN_SECONDS)
    shop.jig("destroy", NAME, "--yes", cwd=shop.folder)
    wait_for(lambda: not _left(daemon), "nothing is left")


def test_a_start_under_an_engine_that_hangs_waits_for_it_or_ends_and_forgets_no_container(
    shop: PlatformProcess, daemon: DockerDaemon
) -> None:
    running = daemon.docker("ps", "--quiet", *MINE)
    shop.kill()
    shop.options = ("--runtime", "auto")
    daemon.freeze()
    with pytest.raises(AssertionError, match=r"No container engine answers at .* has had containers"):
        shop.start()
    shop.log.unlink()
    thawing = threading.Thread(target=_thaw_once_it_waits, args=(shop, daemon))
    thawing.start()
    shop.start()
    thawing.join()
    wait_for(lambda: _ready(shop) == REPLICAS, "all replicas are ready", AGAIN_SECONDS)
    assert daemon.docker("ps", "--quiet", *MINE) == running, "they are the same"
    assert shop.finished(NAME, shop.submit(NAME, {"number": 1}), AGAIN_SECONDS)["status"] == "done"
    shop.jig("destroy", NAME, "--yes", cwd=shop.folder)
    wait_for(lambda: not _left(daemon), "nothing is left")


def _thaw_once_it_waits(platform: PlatformProcess, daemon: DockerDaemon) -> None:
    wait_for(lambda: platform.log.exists() and WAITS in platform.log.read_text(), "it says that it waits")
    daemon.thaw()


def _left(daemon: DockerDaemon) -> str:
    return daemon.docker("ps", "--all", "--quiet", *MINE) + daemon.docker("network", "ls", "--quiet", *MINE)


def _in_hand(platform: PlatformProcess, jobs: list[str]) -> bool:
    return any(platform.job(NAME, job)["status"] == "running" for job in jobs)


def _ready(platform: PlatformProcess) -> int:
    return int(platform.deployment(NAME)["ready_replicas"])
