"""Images of one organization that the engine has, and another that knows their digests: on a real engine, with a real
registry."""

import asyncio
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from docker_engine import run_docker
from factory import Clock
from machineshop.errors import ArtifactMissing, InvalidRequest
from machineshop.runtime.base import ArtifactKind
from machineshop.runtime.docker.api import EngineApi, EngineError
from machineshop.runtime.docker.images import Image, Images
from machineshop.runtime.docker.pulled import PulledImages
from machineshop.runtime.engine import PreparationFailed
from machineshop.services.images import Images as References
from machineshop.services.registry import RegistryService
from pusher import Pusher
from storage_server import StorageServer, storage_server

KINDS = frozenset({ArtifactKind.IMAGE})
OWNER, STRANGER = "team", "others"


class Machine:
    """An engine, and the platform of two organizations; one has had an image pulled."""

    def __init__(self, server: StorageServer, endpoint: str, folder: Path) -> None:
        self.server = server
        self.api = EngineApi(endpoint)
        self.memory = folder / "images.json"
        self.move("http://" + server.host, server.host)
        self.projects: dict[str, str] = {}
        self.digest = ""
        """Of the owner's manifest."""

    def move(self, base_url: str, registry_host: str) -> None:
        """Have the platform reached elsewhere from now on, after a restart."""
        registry = RegistryService(self.server.database, self.server.storage, lambda: base_url)
        references = References(registry, self.server.access, self._pin, lambda: registry_host)
        self.references = references
        self.images = Images(self.api, references, PulledImages(self.api, self.memory))

    async def fetch(self, organization: str, reference: str) -> Image:
        """What a deployment of this reference runs, pulled where the engine lacks it."""
        project_id = self.projects[organization]
        pinned = await self.references.resolve(project_id, reference, accepts=KINDS)
        return await self.images.fetch(project_id, pinned)

    async def finds(self, organization: str, reference: str) -> Image | None:
        """What it would run of what the engine has; None also where it is refused."""
        project_id = self.projects[organization]
        try:
            pinned = await self.references.resolve(project_id, reference, accepts=KINDS)
            grant = await self.references.grant_pull(project_id, pinned)
        except (ArtifactMissing, InvalidRequest):
            return None
        try:
            return await self.images.find(pinned if grant is None else grant.reference, granted=grant is not None)
        except EngineError as error:
            assert "invalid reference format" in error.message
            return None

    async def _pin(self, image: str) -> str:
        return await self.images.pin(image)


@pytest.fixture
async def machine(tmp_path: Path, clock: Clock, endpoint: str) -> AsyncIterator[Machine]:
    folder = tmp_path / "registry"
    folder.mkdir()
    async with storage_server(folder, clock) as server:
        machine = Machine(server, endpoint, tmp_path)
        machine.projects = {slug: await server.project_id(slug) for slug in (OWNER, STRANGER)}
        layer, config = image_of_one_file()
        async with server.client(await server.key(OWNER)) as client:
            machine.digest = await Pusher(client).image(f"{OWNER}/private", "v1", config, layer)
        yield machine
        await machine.api.close()
    run_docker("image", "rm", "--force", f"sha256:{hashlib.sha256(config).hexdigest()}")


def image_of_one_file() -> tuple[bytes, bytes]:
    """The layer and the configuration of an image that nobody else has."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        content = uuid4().hex.encode()
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    layer = packed.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/file"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    return layer, json.dumps(config).encode()


async def test_one_that_was_pulled_for_another_is_found_by_none_of_its_names(machine: Machine) -> None:
    own, path = machine.server.host, f"{OWNER}/private"
    port = own.rpartition(":")[2]
    pulled = await machine.fetch(OWNER, f"{own}/{path}:v1")
    assert await machine.finds(OWNER, f"{own}/{path}@{machine.digest}") == pulled
    registries = [
        "docker.io/",
        "index.docker.io/",
        "localhost/",
        f"{own}/",
        f"localhost:{port}/",
        f"LOCALHOST:{port}/",
        f"127.1:{port}/",
        f"127.0.0.2:{port}/",
        f"0.0.0.0:{port}/",
        f"127.0.0.1:0{port}/",
        f"[::1]:{port}/",
        f"[::ffff:127.0.0.1]:{port}/",
        f"host.docker.internal:{port}/",
        "127.0.0.1:99999/",
        "[::::]:80/",
        f"/{own}/",
        f"//{own}/",
        f"http://{own}/",
        f"{own}//",
        f"{own}/{OWNER}/../",
    ]
    names = ["any", "private", path, f"{STRANGER}/private", *(registry + path for registry in registries)]
    for tag in ("", ":v1", ":latest", f":{pulled.id[7:19]}", f":{pulled.id[7:]}"):
        for digest in ("", f"@{machine.digest}", f"@{pulled.id}"):
            for name in [*names, pulled.id, pulled.id[7:], pulled.id[7:19]]:
                assert await machine.finds(STRANGER, name + tag + digest) is None, name + tag + digest


async def test_it_is_refused_by_the_name_under_which_the_engine_has_it_wherever_the_platform_is(
    machine: Machine,
) -> None:
    own = machine.server.host
    reference = f"{own}/{OWNER}/private@{machine.digest}"
    pulled = await machine.fetch(OWNER, reference)
    machine.move("https://platform.example", own)  # people reach it by another address than the engine does
    with pytest.raises(ArtifactMissing, match="There is no"):
        await machine.fetch(STRANGER, reference)
    assert await machine.fetch(OWNER, reference) == pulled
    machine.move("http://127.0.0.1:1", "127.0.0.1:1")  # and here it was reached before
    with pytest.raises(PreparationFailed, match=r"There is no image .* not this project's") as refused:
        await machine.fetch(STRANGER, reference)
    assert refused.value.final


async def test_what_was_built_here_is_used_by_its_own_name_and_goes_on_to_be_when_that_moves_on(
    machine: Machine,
) -> None:
    name = f"machineshop-test-{uuid4().hex[:12]}"
    ids = []
    try:
        for _ in range(2):
            layer, _config = image_of_one_file()
            made = await asyncio.to_thread(run_docker, "import", "-", f"{name}:1", stdin=layer)
            ids.append(made.stdout.strip())
            found = await machine.fetch(STRANGER, f"{name}:1")
            assert found.id == ids[-1]
        for image_id in ids:
            assert (await machine.fetch(STRANGER, f"{name}:1@{image_id}")).id == image_id
        assert await machine.finds(STRANGER, f"any@{ids[1]}") is None
    finally:
        await asyncio.to_thread(run_docker, "image", "rm", "--force", *ids)
