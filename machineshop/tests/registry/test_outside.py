"""A registry that others run, in the place of ours: here it is that of another Machineshop."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from factory import ADMIN_KEY, Clock
from machineshop.api import images as images_api
from machineshop.api.endpoint import Api
from machineshop.blobs import Storage
from machineshop.config import RegistryLogin, Settings, check, read_login
from machineshop.errors import ArtifactMissing, InvalidRequest, RegistryAway
from machineshop.models import Identity
from machineshop.runtime.base import ArtifactKind
from machineshop.runtime.docker.images import credentials
from machineshop.services.identity import IdentityService
from machineshop.services.images import Images
from machineshop.services.outside_registry import OutsideRegistry
from machineshop.services.references import parse_reference
from machineshop.services.registry import RegistryService
from machineshop.services.registry_access import RegistryAccess
from machineshop.store.database import Database
from migrated import migrated_sqlite
from pusher import Pusher
from storage_server import StorageServer, storage_server

EITHER = frozenset(ArtifactKind)
BUNDLES = frozenset({ArtifactKind.BUNDLE})


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return migrated_sqlite(tmp_path)


@pytest.fixture
async def server(tmp_path: Path, clock: Clock) -> AsyncIterator[StorageServer]:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    async with storage_server(folder, clock) as server:
        yield server


@pytest.fixture
async def outside(server: StorageServer, database: Database) -> AsyncIterator[OutsideRegistry]:
    """Below the namespace `team` there, with its key."""
    registry = OutsideRegistry(f"{server.base_url}/team", RegistryLogin("robot", await server.key("team")), database)
    yield registry
    await registry.close()


@pytest.fixture
async def images(outside: OutsideRegistry, identity: IdentityService, database: Database, tmp_path: Path) -> Images:
    """Deployments' references, with an own registry that is empty."""
    own = RegistryService(database, Storage(tmp_path / "own"), lambda: "http://127.0.0.1:1")
    access = RegistryAccess(database, identity)
    return Images(own, access, _pinned_by_the_engine, lambda: "127.0.0.1:1", outside)


async def _pinned_by_the_engine(image: str) -> str:
    return f"{image}@{'sha256:' + '0' * 64}"


@pytest.mark.parametrize("image", ["sha256:" + "0a" * 32, "0a" * 32, "0a" * 32 + ":latest"])
async def test_the_id_of_an_image_is_refused_at_once(images: Images, admin: Identity, image: str) -> None:
    with pytest.raises(InvalidRequest, match="is an image's id"):
        await images.resolve(admin.project.id, image, accepts=EITHER)


async def test_a_tag_is_pinned_to_its_digest(
    images: Images, pusher: Pusher, admin: Identity, server: StorageServer
) -> None:
    digest = await pusher.image("team/default/app", "v1", b"{}", b"layer")
    pinned = f"{server.host}/team/default/app@{digest}"
    for image in (f"{server.host}/team/default/app:v1", pinned, f"{server.host}/team/default/app:v1@{digest}"):
        assert await images.resolve(admin.project.id, image, accepts=EITHER) == pinned
    with pytest.raises(ArtifactMissing, match="runs bundles only"):
        await images.resolve(admin.project.id, pinned, accepts=BUNDLES)
    assert await images.kind_of(admin.project.id, pinned, EITHER) is ArtifactKind.IMAGE


async def test_the_engine_pulls_with_the_platforms_login_which_nothing_shows(
    images: Images, pusher: Pusher, admin: Identity, server: StorageServer
) -> None:
    digest = await pusher.image("team/default/app", "v1", b"{}", b"layer")
    pinned = f"{server.host}/team/default/app@{digest}"
    for image in (f"{server.host}/team/default/app:v1", pinned):
        grant = await images.grant_pull(admin.project.id, image)
        assert grant is not None
        assert grant.reference == pinned
        assert isinstance(grant.credential, RegistryLogin)
        header = json.loads(base64.urlsafe_b64decode(credentials(grant)["X-Registry-Auth"]))
        assert header == {"serveraddress": server.host, "username": "robot", "password": grant.credential.password}
        assert grant.credential.password not in repr(grant)
    with pytest.raises(ArtifactMissing):
        await images.grant_pull(admin.project.id, f"{server.host}/team/other/app@{digest}")
    assert await images.grant_pull(admin.project.id, "python:3.11") is None


async def test_what_is_not_there_or_anothers_is_missing(
    images: Images, pusher: Pusher, admin: Identity, server: StorageServer
) -> None:
    await pusher.image("team/other/app", "v1", b"{}")
    for image in (
        f"{server.host}/team/default/app:v1",
        f"{server.host}/team/other/app:v1",
        f"{server.host}/team/default/../other/app:v1",
        f"{server.host}/team/defaulted/app:v1",
    ):
        with pytest.raises((ArtifactMissing, InvalidRequest)):
            await images.resolve(admin.project.id, image, accepts=EITHER)
    for image in (f"{server.host}/teams/app:v1", "registry.example.org/team/default/app:v1", "team/default/app:v1"):
        with pytest.raises(ArtifactMissing, match=f"which is {server.host}/team/default/: push it there"):
            await images.resolve(admin.project.id, image, accepts=BUNDLES)
        assert (await images.grant_pull(admin.project.id, image)) is None  # without our login
        assert await images.resolve(admin.project.id, image, accepts=EITHER) == await _pinned_by_the_engine(image)


async def test_a_bundle_is_opened(images: Images, pusher: Pusher, admin: Identity, server: StorageServer) -> None:
    digest = await pusher.bundle("team/default/app", "v1", b'{"version": 1}', b"source" * 500_000)
    bundle = await images.open_bundle(admin.project.id, f"{server.host}/team/default/app@{digest}")
    assert (bundle.digest, bundle.config) == (digest, b'{"version": 1}')
    assert b"".join([chunk async for chunk in bundle.layer]) == b"source" * 500_000


async def test_the_kind_is_looked_up_while_others_go_on(
    images: Images, pusher: Pusher, admin: Identity, server: StorageServer
) -> None:
    image = f"{server.host}/team/default/app@{await pusher.image('team/default/app', 'v1', b'{}')}"
    assert await images.kind_of(admin.project.id, image, BUNDLES) is ArtifactKind.BUNDLE  # nothing else runs anyway
    assert await images.kind_of(admin.project.id, image, EITHER) is None
    async with asyncio.timeout(60):
        while (kind := await images.kind_of(admin.project.id, image, EITHER)) is None:
            await asyncio.sleep(0.01)
    assert kind is ArtifactKind.IMAGE
    await images.close()


async def test_a_registry_that_refuses_us_or_is_away_is_said_to(
    database: Database, admin: Identity, server: StorageServer, pusher: Pusher
) -> None:
    await pusher.image("team/default/app", "v1", b"{}")
    image = parse_reference(f"{server.host}/team/default/app:v1")
    for login in (None, RegistryLogin("robot", "a-wrong-password")):
        stranger = OutsideRegistry(f"{server.base_url}/team", login, database)
        with pytest.raises(RegistryAway, match="MACHINESHOP_REGISTRY_USER"):
            await stranger.locate(admin.project.id, image)
        await stranger.close()
    nobody = OutsideRegistry("http://127.0.0.1:9/team", None, database)
    with pytest.raises(RegistryAway, match="does not answer"):
        await nobody.locate(admin.project.id, parse_reference("127.0.0.1:9/team/default/app:v1"))
    await nobody.close()


async def test_clients_are_told_where_to_push(
    outside: OutsideRegistry, pusher: Pusher, identity: IdentityService, admin: Identity, server: StorageServer
) -> None:
    await pusher.image("team/default/app", "v1", b"{}")
    routes = images_api.routes(Api(identity), _unused(), outside)
    transport = httpx.ASGITransport(Starlette(routes=list(routes)))
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://platform", headers=headers) as client:
        path = (await client.get("/v1/image-repositories/base-path")).json()
        assert path == {"base-path": f"{server.base_url}/team/default", "outside": True}
        assert (await client.get("/v1/image-repositories")).json()["data"] == []
        url = f"{server.host}/team/default/app:v1"
        for name in ("app", "team___default___app"):
            listed = (await client.get(f"/v1/image-repositories/{name}/images")).json()["data"]
            assert listed == [{"object": "image", "tag": "v1", "url": url}]
        assert (await client.get("/v1/image-repositories/none/images")).status_code == 404


def _unused() -> RegistryService:
    return object()  # type: ignore[return-value]


def test_a_login_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    assert read_login(None, None, None) is None
    login = read_login("robot", None, str(file))
    assert login == RegistryLogin("robot", "secret")
    assert "secret" not in repr(login)
    for half in (("robot", None, None), (None, "secret", None), ("robot", None, str(tmp_path / "none"))):
        with pytest.raises(InvalidRequest, match="MACHINESHOP_REGISTRY"):
            read_login(*half)


@pytest.mark.parametrize(
    "url",
    ["https://robot:secret@registry.example.org/a", "https://x/Upper", "https://x/a?b=c", "https://x/../a", "x/a"],
)
def test_a_url_that_is_none_of_a_registry_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--registry-url") as refused:
        check(Settings(data_dir=tmp_path, registry_url=url))
    assert "secret" not in refused.value.message
