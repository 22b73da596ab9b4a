"""From source to a running container: `jig deploy` builds and pushes; a change of one line; and the way back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.container_clients import need_docker
from platform_process import PlatformProcess, wait_for, write_worker
from worker_image import docker, left_of

NAME = "sourced"
WORKER = """
import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        return {"version": 1}
"""
TABLES = "[deploy]\nmemory = 0.5\n"


@pytest.fixture
def dock(tmp_path: Path) -> Iterator[PlatformProcess]:
    """A platform that runs containers alone, so that there is no bundle in the image's place."""
    need_docker()
    platform = PlatformProcess(tmp_path, "--runtime", "docker")
    platform.start()
    yield platform
    repository = f"{platform.base_url.partition('://')[2]}/default/{NAME}"
    platform.close()
    assert left_of(platform) == []
    images = set(docker("image", "ls", "--quiet", "--filter", f"reference={repository}").split())
    docker("image", "rm", "--force", *images, *docker("image", "ls", "--quiet", f"{NAME}").split())


@pytest.mark.timeout(300)
def test_source_is_deployed_changed_and_rolled_back(dock: PlatformProcess, tmp_path: Path) -> None:
    folder = write_worker(tmp_path / NAME, NAME, WORKER, tables=TABLES)
    first = deploy(dock, folder)
    assert version(dock) == 1
    (folder / "worker.py").write_text(WORKER.replace("1}", "2}"))
    second = deploy(dock, folder)
    assert version(dock) == 2
    before, after = layers(dock, first["image"]), layers(dock, second["image"])
    assert len(after) == len(before) > 3
    changed = [layer for layer in after if layer not in before]
    assert len(changed) == 1, "one line makes one layer new: all else is cached, and not pushed again"
    dock.jig("rollback", "1", cwd=folder)
    wait_for(lambda: dock.deployment(NAME)["status"] == "Ready" and version(dock) == 1, "the first one serves again")
    dock.jig("destroy", NAME, "--yes", cwd=folder)
    wait_for(lambda: not left_of(dock), "nothing is left")


def deploy(platform: PlatformProcess, folder: Path) -> dict[str, Any]:
    """`jig deploy --json`."""
    deployed: dict[str, Any] = json.loads(platform.jig("deploy", "--json", cwd=folder).stdout)
    return deployed


def version(platform: PlatformProcess) -> int:
    """What a job says."""
    job = platform.finished(NAME, platform.submit(NAME, {}))
    assert job["status"] == "done", job
    return int(job["outputs"]["version"])


def layers(platform: PlatformProcess, image: str) -> list[str]:
    """The digests of an image's layers in the platform's registry."""
    name, digest = image.partition("/")[2].split("@")
    with platform.client() as client:
        manifest = client.get(f"/v2/{name}/manifests/{digest}").json()
    return [layer["digest"] for layer in manifest["layers"]]
