"""jig's images with the programs that build them: docker with a Dockerfile out of the config, podman and buildah."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.container_clients import COMMAND_SECONDS, missing, need, need_docker
from platform_process import PlatformProcess

JIG = Path(sys.executable).parent / "jig"
BASES = ("python:3.11", "python:3.11-slim")
BUILD_SECONDS = 280
WORKER = """
import os
import pathlib
import sprocket


class Model(sprocket.Sprocket):
    warmup_inputs = [{}]

    def predict(self, args):
        cache = pathlib.Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        cache.mkdir(exist_ok=True)
        (cache / "kernel").write_text(f"{os.getuid()} {os.environ['MODE']} {os.environ['VERSION']}")
        return {}
"""
CONFIG = """
name = "{name}"
worker = "worker:Model"
[image]
environment = {{MODE = 'a "b" $c'}}
run = ["echo built > /built"]
"""


class Project:
    """A project's folder, and the programs as a person runs them there, with a home and a storage of their own."""

    def __init__(self, platform: PlatformProcess, folder: Path) -> None:
        self.folder = folder
        storage = folder.parent / "storage.conf"
        graph, run = folder.parent / "graph", folder.parent / "run"
        storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{graph}"\nrunroot = "{run}"\n')
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TOGETHER_")}
        self._environment = {
            **kept,
            "HOME": str(folder.parent),
            "DOCKER_CONFIG": str(folder.parent / "docker"),
            "XDG_RUNTIME_DIR": str(folder.parent),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "BUILDAH_ISOLATION": "chroot",
            "JIG_CONTEXTS": str(folder.parent / "contexts.json"),
            "TOGETHER_BASE_URL": platform.base_url,
            "TOGETHER_API_KEY": platform.api_key,
        }

    def run(self, *argv: object, seconds_max: float = COMMAND_SECONDS) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(each) for each in argv],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=False,
        )

    def jig(self, *words: str) -> Any:
        """What jig prints with `--json`, which must succeed."""
        finished = self.run(JIG, *words, "--json", seconds_max=BUILD_SECONDS)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return json.loads(finished.stdout)

    def output(self, *argv: object) -> str:
        finished = self.run(*argv)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout


@pytest.fixture
def project(platform: PlatformProcess) -> Iterator[Project]:
    # podman wants a short path.
    with tempfile.TemporaryDirectory(prefix="jig-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "project"
        path.mkdir()
        yield Project(platform, path)


def need_bases(project: Project) -> None:
    """Skip a test where the engine has no Python to begin at; in CI that is a failure."""
    need_docker()
    if project.run("docker", "image", "inspect", *BASES).returncode != 0:
        missing(f"the engine has no images {' and '.join(BASES)}")


@pytest.mark.timeout(600)
def test_docker_builds_a_worker_out_of_its_config_and_warms_it_up(project: Project, platform: PlatformProcess) -> None:
    need_bases(project)
    name = "contract-jig-image"
    (project.folder / "worker.py").write_text(WORKER)
    (project.folder / "jig.toml").write_text(CONFIG.format(name=name))
    for command in ("init -q", "add .", "-c user.name=n -c user.email=e commit -qm m", "tag v1.2"):
        project.output("git", *command.split())
    namespace = f"{platform.base_url.partition('://')[2]}/default"
    try:
        built = project.jig("build", "--builder", "docker", "--warmup", "--docker-args", "--network host")
        assert (built["image"], built["builder"], built["warmed"]) == (f"{name}:latest", "docker", True)
        inspected = json.loads(project.output("docker", "image", "inspect", f"{name}:latest"))[0]["Config"]
        assert inspected["User"] == "10001"
        assert inspected["Labels"] == {"jig.warmed": "true"}
        assert {"TORCHINDUCTOR_CACHE_DIR=/app/torch_cache", 'MODE=a "b" $c'} <= set(inspected["Env"])
        cat = ["docker", "run", "--rm", "--network", "none", f"{name}:latest", "cat"]
        assert project.output(*cat, "/app/torch_cache/kernel", "/built") == '10001 a "b" $c v1.2built\n'
        assert "dumb-init" in project.output(*cat, "/proc/1/cmdline")

        pushed = project.jig("push")
        assert pushed["tags"] == [built["tag"], "latest"]
        assert pushed["image"] == f"{namespace}/{name}@{pushed['digest']}"
        with platform.client() as client:
            for reference in (built["tag"], "latest", pushed["digest"]):
                accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
                answer = client.get(f"/v2/default/{name}/manifests/{reference}", headers=accept)
                assert answer.headers["docker-content-digest"] == pushed["digest"]
    finally:
        project.run("docker", "image", "rm", "--force", f"{name}:latest", f"{namespace}/{name}:latest")


@pytest.mark.parametrize("builder", ["podman", "buildah"])
def test_podman_and_buildah_build_and_push_an_own_dockerfile(
    project: Project, platform: PlatformProcess, builder: str
) -> None:
    need(builder)
    name = f"contract-jig-{builder}"
    (project.folder / "jig.toml").write_text(f'name = "{name}"\n[deploy]\ngpu_type = "none"\n')
    (project.folder / "file").write_text("taken\n")
    (project.folder / "Dockerfile").write_text('FROM scratch\nCOPY file /file\nCMD ["/file"]\n')

    answer = project.jig("deploy", "--build-only", "--builder", builder)

    digest = answer["image"].partition("@")[2]
    with platform.client() as client:
        manifest = client.get(f"/v2/default/{name}/manifests/{digest}")
        tags = client.get(f"/v2/default/{name}/tags/list").json()["tags"]
    assert manifest.status_code == 200
    assert "latest" in tags
    assert len(tags) == 2
    assert not (project.folder.parent / "auth.json").exists()


def test_the_output_of_a_failing_step_is_shown(project: Project) -> None:
    need("buildah")
    (project.folder / "jig.toml").write_text('name = "contract-failing"\n')
    (project.folder / "Dockerfile").write_text("FROM scratch\nCOPY nothing /nothing\n")
    finished = project.run(JIG, "build", "--builder", "buildah")
    assert finished.returncode == 1
    said = finished.stderr.partition("jig: ")[2]
    assert said.startswith("buildah could not build contract-failing:latest.\n  STEP 2/2: COPY nothing /nothing\n")
    assert "Traceback" not in finished.stderr


def test_the_doctor_finds_a_builder_and_the_registry(project: Project) -> None:
    need("buildah")
    (project.folder / "jig.toml").write_text('name = "contract-doctor"\n')
    states = {each["name"]: each["state"] for each in project.jig("doctor")["findings"]}
    assert {states[name] for name in ("config", "platform", "key", "runtime", "registry", "builder")} == {"ok"}
