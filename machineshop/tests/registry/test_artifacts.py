"""What deployments and runtimes get from the registry."""

import pytest

from machineshop.errors import ArtifactMissing, InvalidRequest
from machineshop.runtime.base import ArtifactKind, BundleSource
from machineshop.services.registry import RegistryService
from pusher import Pusher, bundle_manifest, descriptor
from storage_server import StorageServer

CONFIG = b'{"version": 1, "command": ["python", "app.py"]}'
SOURCE = b"not really a tar" * 200_000


async def test_a_bundle_is_opened_by_tag_and_by_digest(server: StorageServer, pusher: Pusher) -> None:
    digest = await pusher.bundle("team/app", "v1", CONFIG, SOURCE)
    source: BundleSource = server.registry
    project_id = await server.project_id("team")
    for image in ("team/app:v1", f"team/app@{digest}", f"team/app:v0@{digest}"):
        bundle = await source.open_bundle(project_id, f"{server.host}/{image}")
        assert (bundle.digest, bundle.config) == (digest, CONFIG)
        assert b"".join([chunk async for chunk in bundle.layer]) == SOURCE


async def test_a_reference_is_pinned_by_digest(server: StorageServer, pusher: Pusher) -> None:
    digest = await pusher.bundle("team/app", "latest", CONFIG, SOURCE)
    project_id, port = await server.project_id("team"), server.host.partition(":")[2]
    pinned = f"{server.host}/team/app@{digest}"
    for image in (
        f"{server.host}/team/app",
        f"{server.host}/team/app:latest",
        f"localhost:{port}/team/app:latest",
        pinned,
        f"an.old.address:80/team/app@{digest}",
        f"team/app@{digest}",
    ):
        assert await server.registry.resolve(project_id, image) == pinned
    by_other_name = await server.registry.resolve(project_id, "shop.example/team/app:latest", host="shop.example")
    assert by_other_name == pinned


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("{host}/team/app:v2", "There is no '.*:v2' in this registry"),
        ("{host}/team/nothing:v1", "There is no"),
        ("{host}/rival/app:v1", "There is no"),
        ("{host}/app:v1", "There is no"),
        ("docker.io/library/python:3.11", "is not in this platform's registry, which is .*/team/"),
        ("team/app:v1", "is not in this platform's registry"),
        ("shop.example/team/app:v1", "is not in this platform's registry"),
        ("shop.example/team/app@sha256:" + "0" * 64, "is not in this platform's registry"),
    ],
)
async def test_what_is_not_there_is_said_to_be_missing(
    server: StorageServer, pusher: Pusher, image: str, why: str
) -> None:
    await pusher.bundle("team/app", "v1", CONFIG, SOURCE)
    async with server.client(await server.key("rival")) as rival:
        await Pusher(rival).bundle("rival/app", "v1", CONFIG, SOURCE)
    project_id = await server.project_id("team")
    with pytest.raises(ArtifactMissing, match=why):
        await server.registry.resolve(project_id, image.format(host=server.host))
    with pytest.raises(ArtifactMissing, match=why):
        await server.registry.open_bundle(project_id, image.format(host=server.host))


@pytest.mark.parametrize(
    ("base_url", "registry", "is_ours"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:08080", True),
        ("http://127.0.0.1:8080", "LocalHost:8080", True),
        ("http://127.0.0.1:8080", "[::1]:8080", True),
        ("http://127.0.0.1:8080", "127.0.0.1:8081", False),
        ("http://127.0.0.1:8080", "127.0.0.1", False),
        ("http://127.0.0.1", "localhost:80", True),
        ("https://platform.example", "platform.example", True),
        ("https://platform.example", "PLATFORM.example:443", True),
        ("https://platform.example", "platform.example:80", False),
        ("https://platform.example", "127.0.0.1:7000", True),
        ("https://platform.example", "127.0.0.1:443", False),
        ("https://platform.example", "127.0.0.1:99999", False),
        ("https://platform.example", "[::::]:443", False),
    ],
)
async def test_the_registry_is_known_by_all_spellings_of_its_names(
    server: StorageServer, pusher: Pusher, base_url: str, registry: str, is_ours: bool
) -> None:
    await pusher.bundle("team/app", "v1", CONFIG, SOURCE)
    service = RegistryService(server.database, server.storage, lambda: base_url)
    rival = await server.project_id("rival")
    image = f"{registry}/team/app:v1"
    if not is_ours:
        assert await service.locate(rival, image, host="127.0.0.1:7000") is None
        return
    located = await service.locate(await server.project_id("team"), image, host="127.0.0.1:7000")
    assert located is not None
    with pytest.raises(ArtifactMissing, match="There is no"):
        await service.locate(rival, image, host="127.0.0.1:7000")


async def test_what_is_no_reference_is_refused(server: StorageServer) -> None:
    project_id = await server.project_id("team")
    with pytest.raises(InvalidRequest):
        await server.registry.resolve(project_id, "NOT AN IMAGE")
    with pytest.raises(ArtifactMissing, match="does not name an image"):
        await server.registry.open_bundle(project_id, "NOT AN IMAGE")


async def test_an_image_is_not_a_bundle(server: StorageServer, pusher: Pusher) -> None:
    await pusher.image("team/app", "image", CONFIG, SOURCE)
    await pusher.bundle("team/app", "bundle", CONFIG, SOURCE)
    project_id, name = await server.project_id("team"), f"{server.host}/team/app"
    assert "@sha256:" in await server.registry.resolve(project_id, f"{name}:image")
    with pytest.raises(ArtifactMissing, match="is a container image, and this runtime runs bundles only: deploy"):
        await server.registry.open_bundle(project_id, f"{name}:image")
    with pytest.raises(ArtifactMissing, match="is a container image"):
        await server.registry.resolve(project_id, f"{name}:image", accepts=frozenset({ArtifactKind.BUNDLE}))
    with pytest.raises(ArtifactMissing, match="is a bundle, and this runtime runs container images only"):
        await server.registry.resolve(project_id, f"{name}:bundle", accepts=frozenset({ArtifactKind.IMAGE}))


async def test_a_bundle_that_is_not_made_as_agreed_is_refused(server: StorageServer, pusher: Pusher) -> None:
    project_id, image = await server.project_id("team"), f"{server.host}/team/app:v1"
    for content in (CONFIG, SOURCE):
        await pusher.blob("team/app", content)
    broken = [
        bundle_manifest(CONFIG),
        bundle_manifest(CONFIG, SOURCE, CONFIG),
        bundle_manifest(CONFIG, SOURCE) | {"config": descriptor(CONFIG, "application/json")},
        bundle_manifest(CONFIG, SOURCE) | {"layers": [descriptor(SOURCE, "application/zip")]},
        bundle_manifest(SOURCE, SOURCE),
    ]
    for manifest in broken:
        await pusher.manifest("team/app", "v1", manifest)
        with pytest.raises(ArtifactMissing, match="is a broken bundle"):
            await server.registry.open_bundle(project_id, image)


async def test_damaged_bytes_end_in_an_error_and_can_be_pushed_again(server: StorageServer, pusher: Pusher) -> None:
    await pusher.bundle("team/app", "v1", CONFIG, SOURCE)
    project_id, image = await server.project_id("team"), f"{server.host}/team/app:v1"
    damaged = max(server.left_on_disk("blobs"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(SOURCE[:-1] + b"?")
    bundle = await server.registry.open_bundle(project_id, image)
    with pytest.raises(ArtifactMissing, match="was damaged on the server's disk: push it again"):
        assert [chunk async for chunk in bundle.layer]
    with pytest.raises(ArtifactMissing, match="lacks its part"):
        await server.registry.open_bundle(project_id, image)
    await pusher.bundle("team/app", "v1", CONFIG, SOURCE)
    bundle = await server.registry.open_bundle(project_id, image)
    assert b"".join([chunk async for chunk in bundle.layer]) == SOURCE


async def test_repositories_and_their_images_are_listed(server: StorageServer, pusher: Pusher) -> None:
    await pusher.image("team/app", "v1")
    await pusher.image("team/deep/er", "v2")
    await pusher.start("team/unfinished")
    client = pusher.client
    base = (await client.get("/v1/image-repositories/base-path")).json()
    assert base == {"base-path": f"{server.base_url}/team"}
    assert (await client.get("/v1/image-repositories")).json() == {
        "object": "list",
        "data": [
            {"object": "image-repository", "id": "team___app", "url": f"{server.host}/team/app"},
            {"object": "image-repository", "id": "team___deep___er", "url": f"{server.host}/team/deep/er"},
        ],
    }
    expected = {"object": "image", "tag": "v2", "url": f"{server.host}/team/deep/er:v2"}
    for repository in ("team___deep___er", "deep___er"):
        listed = (await client.get(f"/v1/image-repositories/{repository}/images")).json()
        assert listed == {"object": "list", "data": [expected]}
    for unknown in ("nothing", "rival___app", "..", "UPPER"):
        answer = await client.get(f"/v1/image-repositories/{unknown}/images")
        assert answer.status_code == 404
