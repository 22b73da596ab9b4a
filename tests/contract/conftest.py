"""What the contract tests share: a worker that is deployed once, deployments that only a test works, and other keys."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.older_worker import OlderWorker
from contract.tg_command import Outside
from platform_process import PlatformProcess, write_worker

ECHO = "contract-echo"
ECHO_SOURCE = """
import os
import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        if "say" in args:
            print(args["say"], flush=True)
        if "fail" in args:
            raise ValueError(args["fail"])
        if "variable" in args:
            return {"value": os.environ.get(args["variable"])}
        return {"echo": args}
"""

_numbers = count(1)


@pytest.fixture(scope="session")
def echo(platform: PlatformProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a deployment with one ready replica, which gives back what it gets."""
    platform.deploy(write_worker(tmp_path_factory.mktemp("echo") / "project", ECHO, ECHO_SOURCE))
    return ECHO


@pytest.fixture(scope="session")
def image(platform: PlatformProcess, echo: str) -> str:
    """A bundle's reference in the platform's registry."""
    return str(platform.deployment(echo)["image"])


@pytest.fixture(scope="session")
def api(platform: PlatformProcess) -> Iterator[httpx.Client]:
    """Plain HTTP with the admin key."""
    with platform.client() as client:
        yield client


@pytest.fixture
def fields(image: str) -> dict[str, Any]:
    """The fields of a deployment that does not exist yet and asks for no replica."""
    return {"name": f"contract-{next(_numbers)}", "image": image, "gpu_type": "none", "min_replicas": 0}


@pytest.fixture
def idle(api: httpx.Client, fields: dict[str, Any]) -> Iterator[str]:
    """The name of a deployment without replicas: its jobs wait for whoever the test lets claim them."""
    name = str(fields["name"])
    assert api.post("/v1/deployments", json=fields).status_code == 200
    yield name
    api.delete(f"/v1/deployments/{name}")


@pytest.fixture
def worker(api: httpx.Client, idle: str) -> OlderWorker:
    """Works the queue of `idle`."""
    return OlderWorker(api, idle)


@pytest.fixture(scope="session")
def stranger(platform: PlatformProcess) -> Iterator[httpx.Client]:
    """Plain HTTP with the strongest key of another project."""
    with platform.client(key=platform.create_key("stranger", "admin")) as client:
        yield client


@pytest.fixture(scope="session")
def worker_key(platform: PlatformProcess, echo: str) -> str:
    """The key of the echo deployment's replica."""
    job = platform.finished(echo, platform.submit(echo, {"variable": "TOGETHER_API_KEY"}))
    return str(job["outputs"]["value"])


@pytest.fixture
def replica(platform: PlatformProcess, worker_key: str) -> Iterator[httpx.Client]:
    """Plain HTTP with that replica's key."""
    with platform.client(key=worker_key) as client:
        yield client


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    """What `tg` reaches outside of the platform."""
    outside = Outside()
    yield outside
    outside.close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty folder for a project."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder
