"""The same platform with a Podman socket in the place of Docker's: an image from its push to the last trace."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.container_clients import ContainerClients
from machineshop.runtime.docker.body import KEPT_CAPABILITIES
from platform_process import PlatformProcess, wait_for
from podman_engine import PodmanEngine
from worker_image import docker

NAME = "loud"


@pytest.fixture
def podman() -> Iterator[PodmanEngine]:
    """An engine for one test, which may break it."""
    engine = PodmanEngine()
    engine.start()
    yield engine
    engine.remove()


@pytest.fixture
def pod(tmp_path: Path, podman: PodmanEngine) -> Iterator[PlatformProcess]:
    """A platform whose engine it is."""
    process = PlatformProcess(tmp_path, "--runtime", "docker", "--host", "0.0.0.0")
    process.environment["DOCKER_HOST"] = podman.endpoint
    process.start()
    yield process
    process.close()


def left_of(platform: PlatformProcess, podman: PodmanEngine) -> list[str]:
    """The containers and networks that this platform has in the engine."""
    instance = (platform.data_dir / "runtime/containers.id").read_text()
    mine = ("-q", "--filter", f"label=machineshop.instance={instance}")
    return [*podman.podman("ps", "--all", *mine).split(), *podman.podman("network", "ls", *mine).split()]


def generate(platform: PlatformProcess, **payload: Any) -> Any:
    """A request through the gateway."""
    with platform.client() as client:
        answer = client.post(f"/v1/deployment-request/{NAME}/generate", json=payload)
    assert answer.status_code == 200, answer.text
    return answer.json()


def the_replica(platform: PlatformProcess) -> tuple[str, dict[str, Any]]:
    """The one that has not ended."""
    events = platform.deployment(NAME)["replica_events"]
    (found,) = ((name, event) for name, event in events.items() if event["replica_status"] != "Terminated")
    return found


@pytest.mark.timeout(180)
def test_an_image_is_pulled_worked_adopted_and_leaves_nothing(
    pod: PlatformProcess, podman: PodmanEngine, worker_image: str, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(prefix="clients-") as home:
        clients = ContainerClients(pod, Path(home))
        clients.login("docker")
        pushed = f"{clients.namespace}/{NAME}:v1"
        docker("tag", worker_image, pushed)
        clients.docker("push", pushed)
        docker("image", "rm", pushed)
    folder = tmp_path / NAME
    folder.mkdir()
    tables = f'name = "{NAME}"\n[deploy]\ngpu_type = "none"\ngpu_count = 0\nmemory = 0.25\ncpu = 1\n'
    tables += 'command = ["python3", "worker.py", "--queue"]\n'
    (folder / "jig.toml").write_text(f"{tables}termination_grace_period_seconds = 20\n")
    pod.jig("deploy", "--image", pushed, cwd=folder)

    job = pod.finished(NAME, pod.submit(NAME, {"a": 1}))
    assert job["outputs"]["echo"] == {"a": 1}, job
    assert generate(pod, b=2)["echo"] == {"b": 2}
    with pod.client() as client:
        wait_for(
            lambda: any("done after" in line for line in client.get(f"/v1/deployments/{NAME}/logs").json()["lines"]),
            "its words are logged",
        )
    name, _ = the_replica(pod)
    (container,) = json.loads(podman.podman("inspect", f"machineshop-{name}-1"))
    assert container["EffectiveCaps"] == [f"CAP_{each}" for each in KEPT_CAPABILITIES]

    podman.kill()  # its containers run on, and so do those of a platform that is killed
    pod.kill()
    podman.start()
    pod.start()
    assert the_replica(pod)[0] == name
    assert generate(pod, c=3)["echo"] == {"c": 3}

    job_id = pod.submit(NAME, {"hold_mib": 600})
    with pod.client() as client:
        # Its end may be seen between two starts alone; after three the job fails.
        wait_for(lambda: "0.25 GiB" in client.get(f"/v1/deployments/{NAME}").text, "it is killed for want of memory")
        client.post("/v1/queue/cancel", json={"model": NAME, "request_id": job_id, "grace_seconds": 0})
    wait_for(lambda: the_replica(pod)[1]["replica_ready_since"], "it is started again")
    pod.jig("destroy", NAME, "--yes", cwd=folder)
    wait_for(lambda: not left_of(pod, podman), "nothing is left", 60)
