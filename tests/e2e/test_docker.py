"""Images in containers, from the push to the last trace: with docker, tg and jig, on a real engine."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from canary import Canary, processes_of, rows_of_sqlite
from contract.container_clients import ContainerClients, need_docker
from contract.tg_command import Outside, Tg
from platform_process import PlatformProcess, wait_for, write_worker
from worker_image import WORKER, docker, left_of

COMMAND = ["python3", "worker.py", "--queue"]


@pytest.fixture
def outside() -> Iterator[Outside]:
    """What `tg` reaches outside of the platform."""
    outside = Outside()
    yield outside
    outside.close()


@pytest.fixture(scope="module")
def dock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    """A platform with containers beside processes, as `serve` is where an engine answers."""
    need_docker()
    process = PlatformProcess(tmp_path_factory.mktemp("dock"), "--runtime", "auto")
    process.start()
    yield process
    process.close()
    assert left_of(process) == []


def outputs(platform: PlatformProcess, name: str, payload: dict[str, Any]) -> dict[str, Any]:
    job = platform.finished(name, platform.submit(name, payload))
    assert job["status"] == "done", job
    result: dict[str, Any] = job["outputs"]
    return result


@pytest.mark.timeout(400)
def test_an_image_is_pushed_deployed_worked_and_leaves_nothing(
    dock: PlatformProcess, worker_image: str, outside: Outside, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(prefix="clients-") as home:
        clients = ContainerClients(dock, Path(home))
        clients.login("docker")
        pushed = f"{clients.namespace}/louder:v1"
        docker("tag", worker_image, pushed)
        clients.docker("push", pushed)
        docker("image", "rm", pushed)
    tg = Tg(dock, tmp_path / "tg", "louder", outside, 'memory = 1\ncommand = ["python3", "worker.py", "--queue"]\n')
    deployed = tg("deploy", "--image", pushed)
    assert deployed.status == 0, deployed.output + deployed.errors
    deployment = dock.deployment("louder")
    assert deployment["status"] == "Ready"
    digest = deployment["image"].partition("@")[2]
    assert deployment["image"] == f"{pushed.rpartition(':')[0]}@{digest}"

    with dock.client() as client:
        upload = client.post("/v1/storage/upload-request", json={"filename": "quiet.txt"}).json()["upload_url"]["url"]
        assert httpx.put(upload, content=b"hello").status_code == 200
        result = outputs(dock, "louder", {"file": f"{dock.base_url}/v1/storage/quiet.txt"})
        assert result["file"].startswith(f"{dock.base_url}/v1/storage/")  # users see their own address
        assert client.get(result["file"], follow_redirects=True).content == b"HELLO"
        health = client.get("/v1/deployment-request/louder/health")
        assert (health.status_code, health.json()["status"]) == (200, "healthy")
        # The worker says so after it has reported the job, and the engine passes it on when it likes.
        logs = "/v1/deployments/louder/logs"
        wait_for(lambda: any("done after" in line for line in client.get(logs).json()["lines"]), "its words are logged")

    dock.kill()
    waiting = left_of(dock)
    assert len(waiting) == 2  # the container and its network
    dock.start()
    assert outputs(dock, "louder", {"file": f"{dock.base_url}/v1/storage/quiet.txt"})["replica"] == result["replica"]
    assert left_of(dock) == waiting
    assert tg("destroy").status == 0
    wait_for(lambda: not left_of(dock), "nothing is left", 60)


@pytest.mark.timeout(400)
def test_a_local_image_and_a_bundle_are_deployed_side_by_side(
    dock: PlatformProcess, worker_image: str, tmp_path: Path
) -> None:
    folder, canary = tmp_path / "local", Canary()
    folder.mkdir()
    (folder / "jig.toml").write_text('name = "local"\n[deploy]\ngpu_type = "none"\ngpu_count = 0\nmemory = 1\n')
    (folder / "value").write_text(canary.value)
    dock.jig("secrets", "set", "TOKEN", "--file", folder / "value", cwd=folder)
    dock.jig("deploy", "--image", worker_image, cwd=folder)
    pinned = dock.deployment("local")["image"]
    assert pinned == f"{worker_image}@{docker('image', 'inspect', '--format', '{{.Id}}', worker_image)}"
    with dock.client() as client:
        answer = client.post("/v1/deployment-request/local/generate", json={"a": 1}).json()
        assert answer == {"echo": {"a": 1}, "in_a_container": True}
        image_id = pinned.partition("@")[2]
        for image in (image_id, image_id.removeprefix("sha256:")):
            refused = client.post("/v1/deployments", json={"name": "thief", "image": image, "gpu_type": "none"})
            assert refused.status_code == 400
            assert "is an image's id" in refused.text
        runtime = client.get("/v1/runtime").json()
        assert (runtime["runtime"], runtime["accepts"]) == ("docker", ["bundle", "image"])
    assert_only_its_container_has_it(dock, canary)
    source = WORKER.replace("sprocket.run(Worker())", "")
    dock.deploy(write_worker(tmp_path / "beside", "beside", source))
    assert outputs(dock, "beside", {"b": 2})["echo"] == {"b": 2}
    for name in ("local", "beside"):
        dock.jig("destroy", name, "--yes", cwd=folder)
    wait_for(lambda: not left_of(dock), "nothing is left", 60)


def assert_only_its_container_has_it(dock: PlatformProcess, canary: Canary) -> None:
    (replica,) = dock.deployment("local")["replica_events"]
    container = docker("inspect", "--format", "{{.Id}}", f"machineshop-{replica}-1")
    assert canary.in_the_engine(container) == []
    assert canary.processes("environ") <= processes_of(container)
    assert canary.processes("cmdline") == set()
    assert canary.files(dock.folder) == []
    assert canary.tables(rows_of_sqlite(dock.data_dir / "machineshop.db")) == []
    with dock.client() as client:
        for path in ("deployments/local", "deployments/local/revisions", "deployments/local/logs", "secrets", "audit"):
            assert not canary.is_in(client.get(f"/v1/{path}").content), path


@pytest.mark.timeout(400)
def test_what_was_pulled_and_is_used_no_more_is_removed_and_nothing_else(
    dock: PlatformProcess, worker_image: str, tmp_path: Path
) -> None:
    folder = tmp_path / "passing"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"FROM {worker_image}\nLABEL passing={folder}\n")
    with tempfile.TemporaryDirectory(prefix="clients-") as home:
        clients = ContainerClients(dock, Path(home))
        clients.login("docker")
        pushed = f"{clients.namespace}/passing:v1"
        docker("build", "--quiet", "--tag", pushed, ".", folder=folder)
        clients.docker("push", pushed)
        docker("image", "rm", "--force", docker("image", "inspect", "--format", "{{.Id}}", pushed))
    (folder / "jig.toml").write_text('name = "passing"\n[deploy]\ngpu_type = "none"\ngpu_count = 0\nmemory = 1\n')
    dock.jig("deploy", "--image", pushed, cwd=folder)
    pulled = dock.deployment("passing")["image"]
    memory = dock.data_dir / "runtime/images.json"
    noted = json.loads(memory.read_text())
    assert pulled in noted
    assert_another_organization_cannot_run_it(dock, pulled)
    _age(dock, memory)
    wait_for(lambda: json.loads(memory.read_text())[pulled] > 1, "what a container has is kept")
    assert docker("image", "inspect", "--format", "{{.Id}}", pulled)
    dock.jig("destroy", "passing", "--yes", cwd=folder)
    wait_for(lambda: not left_of(dock), "nothing runs")
    _age(dock, memory)
    wait_for(lambda: pulled not in json.loads(memory.read_text()), "it is removed")
    assert docker("image", "ls", "--all", "--quiet", "--filter", f"label=passing={folder}") == ""
    assert docker("image", "inspect", "--format", "{{.Id}}", worker_image)


def assert_another_organization_cannot_run_it(dock: PlatformProcess, pulled: str) -> None:
    image_id = docker("image", "inspect", "--format", "{{.Id}}", pulled)
    fields = {"name": "thief", "gpu_type": "none"}
    with dock.client(key=dock.create_key("others")) as client:
        for image in (pulled, pulled.replace("127.0.0.1", "LOCALHOST"), f"{pulled.partition('@')[0]}@{image_id}"):
            refused = client.post("/v1/deployments", json={**fields, "image": image})
            assert refused.status_code == 400
            assert "There is no" in refused.text
        created = client.post("/v1/deployments", json={**fields, "image": f"127.0.0.1:1/any@{image_id}"})
        assert created.status_code == 200, created.text

        def reasons() -> set[str | None]:
            events = client.get("/v1/deployments/thief").json()["replica_events"].values()
            return {event["replica_status_reason"] for event in events}

        wait_for(lambda: reasons() and reasons() <= {"ErrImagePull", "ImagePullBackOff"}, "it does not start")
        assert client.delete("/v1/deployments/thief").status_code == 200


def _age(platform: PlatformProcess, memory: Path) -> None:
    """Let a week pass while the server is away, and have it look again."""
    platform.kill()
    memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), 1.0)))
    platform.start()


def test_without_bundles_and_without_an_engine_it_says_what_to_do(tmp_path: Path) -> None:
    platform = PlatformProcess(tmp_path)
    platform.environment["DOCKER_HOST"] = f"unix://{tmp_path}/no.sock"
    finished = platform.machineshop("serve", "--data-dir", platform.data_dir, "--port", 0, "--runtime", "docker")
    assert finished.returncode == 1
    assert f"No container engine answers at unix://{tmp_path}/no.sock. Start it, set DOCKER_HOST" in finished.stderr
    findings = json.loads(platform.machineshop("doctor", "--json", "--data-dir", platform.data_dir).stdout)
    assert "no engine answers" in next(finding["detail"] for finding in findings if finding["name"] == "docker")


def test_a_container_reads_its_volume(dock: PlatformProcess, worker_image: str, tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "list.txt").write_text("apple")
    dock.jig("volumes", "create", "words", tmp_path / "words", cwd=tmp_path)
    with dock.client() as client:
        mounted = {"name": "words", "mount_path": "/words"}
        fields = {"name": "reader", "gpu_type": "none", "volumes": [mounted], "image": worker_image}
        assert client.post("/v1/deployments", json={**fields, "command": COMMAND}).status_code == 200
        made = outputs(dock, "reader", {"file": "/words/list.txt"})
        assert client.get(made["file"], follow_redirects=True).text == "APPLE"
        (event,) = dock.deployment("reader")["replica_events"].values()
        assert event["volume_preload_status"] == "Completed"
    dock.jig("destroy", "reader", "--yes", cwd=tmp_path)
    wait_for(lambda: not left_of(dock), "nothing is left", 60)
