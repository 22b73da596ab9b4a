"""A platform whose images are in a registry that others run: here that of another Machineshop."""

import base64
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.container_clients import ContainerClients, missing, need_docker
from platform_process import PlatformProcess, wait_for, write_worker

BASE = "python:3.11-slim"
DOCKER_SECONDS = 300
READY_SECONDS = 120
WORKER = """
import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        return {"echo": args}
"""
SERVER = "import http.server, os; http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ['PORT']))"


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """Who runs the registry."""
    process = PlatformProcess(tmp_path_factory.mktemp("others"))
    process.start()
    yield process
    process.close()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, others: PlatformProcess) -> Iterator[PlatformProcess]:
    """The platform that uses it below a path, with a login of its own."""
    folder = tmp_path_factory.mktemp("ours")
    process = PlatformProcess(folder, "--registry-url", f"{others.base_url}/default", "--runtime", "auto")
    password = folder / "password"
    password.write_text(others.create_key("default", "viewer") + "\n")
    (folder / "home").mkdir()
    process.environment |= {
        "MACHINESHOP_REGISTRY_USER": "robot",
        "MACHINESHOP_REGISTRY_PASSWORD_FILE": str(password),
        "DOCKER_CONFIG": str(folder / "docker"),
        "XDG_RUNTIME_DIR": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "home"),
    }
    process.start()
    yield process
    process.close()
    assert password.read_text().strip() not in process.log.read_text()


def host(platform: PlatformProcess) -> str:
    return platform.base_url.partition("://")[2]


def docker(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=DOCKER_SECONDS, check=False)


def log_in(ours: PlatformProcess, others: PlatformProcess, password: str) -> None:
    """What `docker login` leaves behind."""
    file = Path(ours.environment["DOCKER_CONFIG"], "config.json")
    file.parent.mkdir(exist_ok=True)
    login = base64.b64encode(f"me:{password}".encode()).decode()
    file.write_text(json.dumps({"auths": {host(others): {"auth": login}}}))


@pytest.mark.timeout(300)
def test_a_bundle_is_pushed_with_the_users_own_login_and_runs(
    ours: PlatformProcess, others: PlatformProcess, tmp_path: Path
) -> None:
    project = write_worker(tmp_path / "echo", "echo", WORKER)
    refused = ours.jig("deploy", cwd=project, check=False)
    assert refused.returncode == 1
    assert f"docker login {host(others)}" in refused.stderr
    assert "Traceback" not in refused.stderr
    log_in(ours, others, "no-password")
    assert "does not let your login" in ours.jig("deploy", cwd=project, check=False).stderr

    log_in(ours, others, others.api_key)
    looked_at = ours.jig("doctor", "--json", cwd=project, check=False).stdout
    assert f"{host(others)}, which others run, takes your login" in looked_at
    ours.deploy(project)
    assert ours.deployment("echo")["image"].startswith(f"{host(others)}/default/default/echo@sha256:")
    job = ours.finished("echo", ours.submit("echo", {"a": 1}))
    assert (job["status"], job["outputs"]) == ("done", {"echo": {"a": 1}})
    with ours.client() as client:
        listed = client.get("/v1/image-repositories/echo/images").json()["data"]
        assert [each["tag"] for each in listed] == ["latest"]
    ours.jig("destroy", "echo", "--yes", cwd=project)


@pytest.mark.timeout(500)
def test_an_image_is_pulled_with_the_platforms_login(ours: PlatformProcess, others: PlatformProcess) -> None:
    need_docker()
    if docker("image", "inspect", BASE).returncode and docker("pull", "-q", BASE).returncode:
        missing(f"the Docker engine has no {BASE} and cannot pull it")
    image = f"{host(others)}/default/default/website:v1"
    with tempfile.TemporaryDirectory(prefix="clients-") as home:
        clients = ContainerClients(others, Path(home))
        clients.login("docker")
        for words in (("tag", BASE, image), ("push", image), ("image", "rm", image)):
            finished = docker("--config", str(clients.folder / "docker"), *words)
            assert finished.returncode == 0, finished.stdout + finished.stderr
    body = {"name": "website", "image": image, "command": ["python3", "-c", SERVER], "gpu_type": "none", "memory": 0.5}
    with ours.client() as client:
        anothers = {**body, "image": f"{host(others)}/default/another/website:v1"}
        refused = client.post("/v1/deployments", json=anothers)
        assert refused.status_code == 400
        assert f"which is {host(others)}/default/default/: push it there" in refused.text
        made = client.post("/v1/deployments", json={**body, "health_check_path": "/"})
        assert made.status_code == 200, made.text
        pinned = made.json()["image"]
        assert pinned.startswith(f"{host(others)}/default/default/website@sha256:")
        wait_for(lambda: ours.deployment("website")["status"] == "Ready", "the container is ready", READY_SECONDS)
        # A start of the server asks the registry what kind each is, and leaves what runs as it is.
        (replica,) = ours.deployment("website")["replica_events"]
        ours.kill()
        ours.start()
        wait_for(lambda: ours.deployment("website")["status"] == "Ready", "it is taken over", READY_SECONDS)
        assert replica in ours.deployment("website")["replica_events"]
    with ours.client() as client:
        assert client.delete("/v1/deployments/website").status_code == 200
    assert f"image pulled: reference={pinned}" in ours.log.read_text()
    wait_for(lambda: docker("image", "rm", pinned).returncode == 0, "its container is gone", READY_SECONDS)
