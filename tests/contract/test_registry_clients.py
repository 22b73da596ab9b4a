"""The registry with the programs that people use: docker, podman, skopeo, buildah, tg, curl."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from contract.container_clients import INDEX, ContainerClients, Layout, config_of, layer_with, need, need_docker
from contract.halfway import Halfway
from contract.tg_command import Outside, Tg
from platform_process import PlatformProcess, wait_for
from pusher import digest_of, image_manifest

MIB = 1024 * 1024
PULL_SECONDS = 180.0
"""Docker tries again after 5, 10, 15 and 20 s, and the server's start in between takes its time."""


@pytest.fixture
def clients(platform: PlatformProcess) -> Iterator[ContainerClients]:
    # podman wants a short path.
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        yield ContainerClients(platform, Path(folder))


def imported(clients: ContainerClients, image: str) -> str:
    """Have the Docker engine make an image of one file; returns its id."""
    archive = clients.folder / "layer.tar"
    archive.write_bytes(layer_with("file", image.encode() * 1000))
    return clients.docker("import", archive, image).strip()


def manifest_of(api: httpx.Client, name: str, reference: str) -> httpx.Response:
    types = f"{INDEX}, application/vnd.docker.distribution.manifest.v2+json"
    return api.get(f"/v2/default/{name}/manifests/{reference}", headers={"Accept": types})


def test_docker_pushes_and_pulls(clients: ContainerClients, api: httpx.Client) -> None:
    need_docker()
    clients.login("docker")
    first, second = f"{clients.namespace}/docker:v1", f"{clients.namespace}/docker-too:v1"
    image_id = imported(clients, first)
    try:
        clients.docker("push", first)
        clients.docker("tag", first, second)
        assert "Mounted from default/docker" in clients.docker("push", second)
        clients.docker("image", "rm", first, second)
        assert f"Digest: {manifest_of(api, 'docker', 'v1').headers['docker-content-digest']}" in clients.docker(
            "pull", first
        )
        assert clients.docker("image", "inspect", "--format", "{{.Id}}", first).strip() == image_id
    finally:
        clients.docker("image", "rm", "--force", first, second)


def test_docker_without_a_good_key_is_refused(clients: ContainerClients) -> None:
    need_docker()
    with pytest.raises(AssertionError, match="unauthorized"):
        clients.docker("login", clients.host, "--username", "user", "--password-stdin", stdin="msk_wrong")


def test_skopeo_copies_an_index_of_two_platforms_there_and_back(clients: ContainerClients, api: httpx.Client) -> None:
    need("skopeo")
    clients.login("skopeo")
    there, back = Layout(clients.folder / "there"), clients.folder / "back"
    digest = there.index("v1", [there.image("amd64", "gzip"), there.image("arm64", "zstd")])

    clients.skopeo("copy", "--all", f"oci:{there.folder}:v1", f"docker://{clients.namespace}/both:v1")
    clients.skopeo("copy", "--all", f"docker://{clients.namespace}/both:v1", f"docker://{clients.namespace}/copy:v2")
    clients.skopeo("copy", "--all", f"docker://{clients.namespace}/copy@{digest}", f"oci:{back}:v1")

    assert manifest_of(api, "copy", "v2").headers["docker-content-digest"] == digest
    returned = {path.name: path.read_bytes() for path in (back / "blobs/sha256").iterdir()}
    assert returned == there.blobs, "byte by byte, however the layers are compressed"
    assert json.loads(clients.skopeo("list-tags", f"docker://{clients.namespace}/copy"))["Tags"] == ["v2"]
    clients.skopeo("delete", f"docker://{clients.namespace}/copy:v2")
    assert manifest_of(api, "copy", "v2").status_code == 404


def test_podman_pulls_and_pushes(clients: ContainerClients, api: httpx.Client) -> None:
    need("skopeo")
    need("podman")
    clients.login("podman")
    layout = Layout(clients.folder / "layout")
    layout.index("v1", [layout.image("amd64", "gzip")])
    clients.skopeo("copy", "--all", f"oci:{layout.folder}:v1", f"docker://{clients.namespace}/podman:v1")

    pulled = clients.podman("pull", "--quiet", "--arch=amd64", "--tls-verify=false", f"{clients.namespace}/podman:v1")
    clients.podman("push", "--quiet", "--tls-verify=false", pulled.strip(), f"{clients.namespace}/podman:v2")

    tags = api.get("/v2/default/podman/tags/list").json()["tags"]
    assert tags == ["v1", "v2"]


def test_buildah_builds_pushes_and_pulls(clients: ContainerClients, api: httpx.Client) -> None:
    need("buildah")
    clients.login("buildah")
    image = f"{clients.namespace}/buildah:v1"
    context = clients.folder / "context"
    context.mkdir()
    (context / "file").write_bytes(b"built" * 1000)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY file /file\n")

    clients.buildah("build", "--quiet", "--isolation=chroot", "--tag", image, context)
    clients.buildah("push", "--quiet", "--tls-verify=false", image)
    clients.buildah("rmi", image)
    clients.buildah("pull", "--quiet", "--tls-verify=false", image)

    assert manifest_of(api, "buildah", "v1").status_code == 200


def test_tg_pushes(
    clients: ContainerClients, platform: PlatformProcess, outside: Outside, project: Path, api: httpx.Client
) -> None:
    need_docker()
    tg = Tg(platform, project, "contract-push", outside)
    image = f"{clients.namespace}/contract-push:latest"
    imported(clients, image)
    try:
        # Where buildx is not to be had, it pushes what was built.
        pushed = tg("push", JIG_DISABLE_BUILDX="1")
    finally:
        clients.docker("image", "rm", "--force", image)
    assert "Pushed" in pushed.output, pushed.output + pushed.errors
    assert manifest_of(api, "contract-push", "latest").status_code == 200


def test_a_pull_goes_on_after_the_server_was_killed(own_platform: PlatformProcess, tmp_path: Path) -> None:
    need("curl")
    layer = bytes(range(256)) * 4096 * 16
    path = f"/v2/default/model/blobs/{digest_of(layer)}"
    with own_platform.client() as client:
        query = {"digest": digest_of(layer)}
        assert client.post("/v2/default/model/blobs/uploads/", params=query, content=layer).status_code == 201
    partial = tmp_path / "partial"
    curl = ["curl", "--silent", "--fail", "--user", f"user:{own_platform.api_key}", "--output", str(partial)]
    url = f"{own_platform.base_url}{path}"

    with subprocess.Popen([*curl, "--limit-rate", "2M", url]) as pull:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 0, "the pull is under way")
        own_platform.kill()
        assert pull.wait(60) != 0
    assert 0 < partial.stat().st_size < len(layer)
    own_platform.start()
    subprocess.run([*curl, "--continue-at", "-", url], check=True, timeout=60)

    assert partial.read_bytes() == layer


@pytest.mark.timeout(400)
def test_dockers_pull_goes_on_after_the_server_was_killed(own_platform: PlatformProcess) -> None:
    """By itself, and without the half that it has."""
    need_docker()
    layer = layer_with("file", os.urandom(64 * MIB))
    config = config_of(layer)
    manifest = image_manifest(config, layer)
    with own_platform.client() as client:
        for blob in (layer, config):
            query = {"digest": digest_of(blob)}
            assert client.post("/v2/default/large/blobs/uploads/", params=query, content=blob).status_code == 201
        headers = {"Content-Type": manifest["mediaType"]}
        made = client.put("/v2/default/large/manifests/v1", content=json.dumps(manifest), headers=headers)
        assert made.status_code == 201, made.text
    way = Halfway(own_platform.port, len(layer) // 2)
    with tempfile.TemporaryDirectory(prefix="clients-") as folder, ThreadPoolExecutor(1) as pool:
        clients = ContainerClients(own_platform, Path(folder), way.host)
        clients.login("docker")
        image = f"{clients.namespace}/large:v1"
        pull = pool.submit(clients.run, "docker", "pull", image, within_seconds=PULL_SECONDS)
        try:
            wait_for(lambda: way.stopped.is_set() or pull.done(), "half of it is there")
            own_platform.kill()
            own_platform.start()
            way.go_on()
            printed = pull.result()
            assert "Retrying in" in printed, printed
            assert len(layer) <= way.passed_bytes < 1.25 * len(layer)
            assert clients.docker("image", "inspect", "--format", "{{.Id}}", image).strip() == digest_of(config)
        finally:
            way.close()
            clients.docker("image", "rm", "--force", image)
