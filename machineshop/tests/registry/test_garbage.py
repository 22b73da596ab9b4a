"""Garbage collection: what goes and when, and what never goes, also with pushes under way."""

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from alembic import command
from sqlalchemy import create_engine, text

from factory import Clock, eventually
from machineshop.blobs import Storage
from machineshop.blobs.layout import new_registry_key
from machineshop.models import Identity, Organization
from machineshop.runtime.base import ArtifactKind, Capacity
from machineshop.services.deployments import DeploymentService
from machineshop.services.garbage import GRACE_SECONDS, SWEEP_SECONDS, Collected, GarbageCollector, decide
from machineshop.services.registry import RegistryService
from machineshop.store.database import Database, sqlite_url
from machineshop.store.registry_garbage import Unneeded
from machineshop.store.schema import config as migrations
from machineshop.store.schema import migrate
from pusher import OCI_IMAGE, OCI_INDEX, Pusher, descriptor, digest_of, image_manifest
from storage_server import StorageServer

HOUR = 3600.0


@pytest.fixture
def collector(server: StorageServer, clock: Clock) -> GarbageCollector:
    return GarbageCollector(server.database, server.storage.blobs, clock)


async def status(client: httpx.AsyncClient, path: str) -> int:
    """Seen without asking for it: HEAD and GET of a manifest, and HEAD of a blob, count as use."""
    return (await client.get(f"/v2/team/app/{path}", headers={"Range": "bytes=0-0"})).status_code


async def after(collector: GarbageCollector, clock: Clock, seconds: float) -> Collected:
    """A pass that marks, and one so much later."""
    await collector.run_once(clock.now)
    clock.now += seconds
    return await collector.run_once(clock.now)


async def blob_is_there(client: httpx.AsyncClient, content: bytes) -> bool:
    return await status(client, f"blobs/{digest_of(content)}") in {200, 206, 416}


def test_what_is_unneeded_is_marked_first_and_removed_when_the_mark_is_old() -> None:
    found = Unneeded(
        frozenset({"new", "young", "old", "pinned"}), {"young": 50.0, "old": 10.0, "used": 1.0, "pinned": 1.0}
    )
    decision = decide(found, frozenset({"pinned"}), now=110.0, grace_seconds=100.0)
    assert decision.mark == {"new"}
    assert decision.unmark == {"used", "pinned"}
    assert decision.remove == {"old"}


async def test_a_tagged_image_stays_for_ever(pusher: Pusher, collector: GarbageCollector, clock: Clock) -> None:
    await pusher.image("team/app", "v1", b"{}", b"layer")
    for _ in range(3):
        assert await after(collector, clock, 10 * GRACE_SECONDS) == Collected()
    assert (await pusher.client.get("/v2/team/app/manifests/v1")).status_code == 200
    assert await blob_is_there(pusher.client, b"layer")


async def test_an_image_that_lost_its_tag_goes_in_two_steps(
    pusher: Pusher, collector: GarbageCollector, clock: Clock, server: StorageServer
) -> None:
    await pusher.image("team/app", "v1", b"{}", b"old layer", b"shared")
    await pusher.image("team/app", "v1", b"{}", b"new layer", b"shared")
    assert await after(collector, clock, GRACE_SECONDS - 1) == Collected()
    clock.now += 1
    assert await collector.run_once(clock.now) == Collected(manifests=1)
    assert await blob_is_there(pusher.client, b"old layer"), "somebody may have been told that it is there"
    clock.now += GRACE_SECONDS
    assert await collector.run_once(clock.now) == Collected(blobs=1, files=1)
    assert not await blob_is_there(pusher.client, b"old layer")
    assert await blob_is_there(pusher.client, b"shared")
    assert len(server.left_on_disk("blobs")) == 3


async def test_whoever_asks_for_it_keeps_it(pusher: Pusher, collector: GarbageCollector, clock: Clock) -> None:
    digest = await pusher.image("team/app", "v1", b"{}", b"layer")
    await pusher.client.delete("/v2/team/app/manifests/v1")
    await pusher.blob("team/app", b"on its way")
    for _ in range(4):
        assert await after(collector, clock, GRACE_SECONDS - 1) == Collected()
        assert (await pusher.client.head(f"/v2/team/app/manifests/{digest}")).status_code == 200
        assert (await pusher.client.head(f"/v2/team/app/blobs/{digest_of(b'on its way')}")).status_code == 200
    clock.now += 2
    assert await after(collector, clock, GRACE_SECONDS) == Collected(manifests=1, blobs=1, files=1)


async def test_whoever_pushes_or_refers_to_it_again_keeps_it(
    pusher: Pusher, collector: GarbageCollector, clock: Clock
) -> None:
    """Each of them counts on a blob whose mark is about to be old enough."""
    layer = digest_of(b"layer")
    mount = {"mount": layer, "from": "team/other"}
    await pusher.blob("team/other", b"layer")
    again: list[Callable[[], Awaitable[object]]] = [
        lambda: pusher.blob("team/app", b"layer"),
        lambda: pusher.client.post("/v2/team/app/blobs/uploads/", params=mount),
        lambda: pusher.manifest("team/app", "v1", image_manifest(b"{}", b"layer")),
    ]
    for count_on in again:
        await pusher.blob("team/app", b"layer")
        await pusher.blob("team/app", b"{}")
        await collector.run_once(clock.now)
        clock.now += GRACE_SECONDS - 1
        await count_on()
        await pusher.blob("team/other", b"layer")
        await pusher.client.delete("/v2/team/app/manifests/v1")
        clock.now += 2
        await collector.run_once(clock.now)
        assert await blob_is_there(pusher.client, b"layer")


async def test_an_index_keeps_its_images_and_an_image_its_signatures(
    pusher: Pusher, collector: GarbageCollector, clock: Clock
) -> None:
    digest = await pusher.image("team/app", "amd64", b"{}", b"layer")
    content = msgspec.json.encode(image_manifest(b"{}", b"layer"))
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(content, OCI_IMAGE)]}
    assert index["manifests"][0]["digest"] == digest  # type: ignore[index]
    await pusher.manifest("team/app", "v1", index)
    await pusher.client.delete("/v2/team/app/manifests/amd64")
    await pusher.blob("team/app", b"signature")
    signature = image_manifest(b"{}", b"signature", subject=descriptor(content, OCI_IMAGE))
    await pusher.manifest("team/app", digest_of(msgspec.json.encode(signature)), signature)
    for _ in range(3):
        assert await after(collector, clock, 2 * GRACE_SECONDS) == Collected()

    await pusher.client.delete("/v2/team/app/manifests/v1")
    assert await collector.collect_all(0) == Collected(manifests=3, blobs=3, files=3)


async def test_what_another_repository_serves_stays(
    pusher: Pusher, collector: GarbageCollector, server: StorageServer
) -> None:
    await pusher.blob("team/app", b"layer")
    await pusher.image("team/other", "v1", b"{}", b"layer")
    async with server.client(await server.key("rival")) as rival:
        await Pusher(rival).blob("rival/app", b"layer")
    assert await collector.collect_all(0) == Collected(blobs=2)
    assert (await pusher.client.get(f"/v2/team/other/blobs/{digest_of(b'layer')}")).content == b"layer"


async def test_bytes_that_a_crash_left_are_swept(
    pusher: Pusher, collector: GarbageCollector, clock: Clock, server: StorageServer
) -> None:
    await pusher.image("team/app", "v1", b"{}")
    left = server.data_directory / "blobs" / new_registry_key(digest_of(b"left"))
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"left")
    assert await collector.run_once(clock.now) == Collected()
    clock.now += 30 * HOUR
    for path in server.left_on_disk("blobs"):
        os.utime(path, (clock.now - 25 * HOUR,) * 2)
    assert await collector.run_once(clock.now) == Collected(files=1)
    assert (await pusher.client.get(f"/v2/team/app/blobs/{digest_of(b'{}')}")).content == b"{}"
    assert SWEEP_SECONDS < 30 * HOUR


async def test_a_push_of_what_was_just_removed_is_whole(pusher: Pusher, collector: GarbageCollector) -> None:
    for _ in range(3):
        await pusher.blob("team/app", b"layer")
        assert await collector.collect_all(0) == Collected(blobs=1, files=1)
        await pusher.image("team/app", "v1", b"{}", b"layer")
        assert await blob_is_there(pusher.client, b"layer")
        await pusher.client.delete("/v2/team/app/manifests/v1")
        await collector.collect_all(0)


async def test_two_servers_make_a_repository_once_and_leave_no_tag_that_leads_nowhere(
    database: Database, database_url: str, admin: Identity, clock: Clock, tmp_path: Path
) -> None:
    other = Database(database_url)
    other.start()
    storage, name = Storage(tmp_path / "storage"), "default/app"
    pushing, deleting = (RegistryService(each, storage, lambda: "http://x", clock) for each in (database, other))
    content = msgspec.json.encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
    digest = digest_of(content)
    try:
        for number in range(30):
            made = (each.ensure_repository(admin.organization, f"{name}-{number}") for each in (pushing, deleting))
            assert len(set(await asyncio.gather(*made))) == 1
            await pushing.put_manifest(admin.organization, name, digest, content, OCI_INDEX)
            await asyncio.gather(
                pushing.put_manifest(admin.organization, name, "v1", content, OCI_INDEX),
                deleting.delete_manifest(admin.organization, name, digest),
            )
            for tag in await pushing.tags(admin.organization, name):
                assert (await pushing.manifest(admin.organization, name, tag)).digest == digest
    finally:
        await asyncio.to_thread(other.close)


async def test_what_a_revision_runs_stays_until_its_deployment_is_gone(
    database: Database, admin: Identity, clock: Clock, tmp_path: Path
) -> None:
    storage = Storage(tmp_path / "storage")
    registry = RegistryService(database, storage, lambda: "http://127.0.0.1:1", clock)
    capacity = Capacity(2, 8, 0)
    deployments = DeploymentService(database, registry, lambda: capacity, frozenset(ArtifactKind), clock)
    collector = GarbageCollector(database, storage.blobs, clock)
    first = await push_directly(registry, admin.organization, b"first")
    image = f"127.0.0.1:1/default/app@{first}"
    deployment = await deployments.create(admin.project.id, {"name": "model", "image": image, "gpu_type": "none"})
    second = await push_directly(registry, admin.organization, b"second")
    await deployments.update(admin.project.id, "model", {"image": f"127.0.0.1:1/default/app@{second}"})
    await registry.delete_manifest(admin.organization, "default/app", "latest")
    assert await collector.collect_all(0) == Collected()
    assert (await registry.manifest(admin.organization, "default/app", first)).digest == first

    await deployments.delete(admin.project.id, deployment.name)
    assert await collector.collect_all(0) == Collected(manifests=2, blobs=2, files=2)
    await asyncio.to_thread(storage.close)


async def push_directly(registry: RegistryService, organization: Organization, config: bytes) -> str:
    """An image under the tag `latest`, without HTTP; returns its digest."""

    async def parts() -> Any:
        yield config

    repository = await registry.ensure_repository(organization, "default/app")
    await registry.uploads.push(repository, digest_of(config), parts())
    content = msgspec.json.encode(image_manifest(config))
    manifest, _ = await registry.put_manifest(organization, "default/app", "latest", content, OCI_IMAGE)
    return manifest.digest


async def test_a_resolved_image_is_kept_for_the_deployment_that_comes(
    pusher: Pusher, collector: GarbageCollector, clock: Clock, server: StorageServer
) -> None:
    digest = await pusher.image("team/app", "v1")
    await pusher.client.delete("/v2/team/app/manifests/v1")
    await collector.run_once(clock.now)
    clock.now += GRACE_SECONDS - 1
    await server.registry.resolve(await server.project_id(), f"{server.host}/team/app@{digest}")
    clock.now += 1
    assert await collector.run_once(clock.now) == Collected()


async def test_pushes_mounts_and_deletes_beside_a_collector_that_never_rests(
    pusher: Pusher, server: StorageServer
) -> None:
    """With an hour of grace nothing that a client was told to be there goes away under it."""
    collector = GarbageCollector(server.database, server.storage.blobs)
    passes, over = 0, asyncio.Event()

    async def collect() -> None:
        nonlocal passes
        while not over.is_set():
            await collector.collect(time.time(), HOUR)
            passes += 1

    async def push(number: int) -> None:
        source = random.Random(number)
        name = f"team/app-{number % 3}"
        for turn in range(8):
            layers = [bytes([source.randrange(6)]) * 2000 for _ in range(2)]
            for layer in (b"{}", *layers):
                if (await pusher.client.head(f"/v2/{name}/blobs/{digest_of(layer)}")).status_code == 200:
                    continue
                mount = {"mount": digest_of(layer)}
                if (await pusher.client.post(f"/v2/{name}/blobs/uploads/", params=mount)).status_code != 201:
                    await pusher.blob(name, layer)
            await pusher.manifest(name, f"tag-{number}", image_manifest(b"{}", *layers))
            for layer in layers:
                answer = await pusher.client.get(f"/v2/{name}/blobs/{digest_of(layer)}")
                assert answer.content == layer
            if turn % 3 == 2:
                await pusher.client.delete(f"/v2/{name}/manifests/tag-{number}")

    collecting = asyncio.create_task(collect())
    try:
        await asyncio.gather(*(push(number) for number in range(6)))
        await eventually(lambda: passes > 3)
    finally:
        over.set()
        await collecting


async def test_a_collector_without_grace_never_breaks_what_has_a_tag(
    pusher: Pusher, server: StorageServer, collector: GarbageCollector
) -> None:
    """A push may be refused for a blob that is gone again. One that was taken is whole."""

    async def collect() -> None:
        for _ in range(30):  # with more of them pushes could be refused for ever
            await collector.collect_all(0)

    async def push(number: int) -> None:
        layer = bytes([number % 2]) * 3000
        for _ in range(4):
            while True:
                await pusher.blob("team/app", layer)
                await pusher.blob("team/app", b"{}")
                content = msgspec.json.encode(image_manifest(b"{}", layer))
                answer = await pusher.put_manifest("team/app", f"tag-{number}", content, OCI_IMAGE)
                if answer.status_code == 201:
                    break
                assert answer.json()["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"
            assert (await pusher.client.get(f"/v2/team/app/blobs/{digest_of(layer)}")).content == layer
            assert (await pusher.client.delete(f"/v2/team/app/manifests/tag-{number}")).status_code == 202

    await asyncio.gather(collect(), *(push(number) for number in range(4)))
    await collector.collect_all(0)
    assert server.left_on_disk("blobs") == []


def test_the_command_collects_in_a_data_directory(tmp_path: Path) -> None:
    machineshop = Path(sys.executable).with_name("machineshop")
    migrate(sqlite_url(tmp_path / "machineshop.db"))
    shown = subprocess.run(
        [machineshop, "registry", "gc", "--grace", "0", "--data-dir", tmp_path, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert msgspec.json.decode(shown.stdout) == {"manifests": 0, "blobs": 0, "files": 0}
    refused = subprocess.run(
        [machineshop, "registry", "gc", "--grace=-1", "--data-dir", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (refused.returncode, refused.stderr) == (2, "machineshop: --grace is -1; it must be 0 or more hours.\n")


async def test_a_registry_of_before_keeps_what_it_has(tmp_path: Path, clock: Clock) -> None:
    url = sqlite_url(tmp_path / "machineshop.db")
    engine = create_engine(url)
    content = msgspec.json.encode(image_manifest(b"{}", b"layer"))
    with engine.begin() as conn:
        command.upgrade(migrations(conn), "0002")
        conn.execute(text("INSERT INTO organizations VALUES ('o', 'team', 'team', 0)"))
        conn.execute(text("INSERT INTO repositories VALUES ('r', 'o', 'app', 0)"))
        for blob in (b"{}", b"layer", b"unneeded"):
            conn.execute(
                text("INSERT INTO repository_blobs VALUES ('r', :digest, :size, 0)"),
                {"digest": digest_of(blob), "size": len(blob)},
            )
            hexadecimal = digest_of(blob).removeprefix("sha256:")
            path = tmp_path / "blobs/registry/sha256" / hexadecimal[:2] / hexadecimal
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob)
        conn.execute(
            text("INSERT INTO manifests VALUES ('r', :digest, :type, :content, NULL, 0)"),
            {"digest": digest_of(content), "type": OCI_IMAGE, "content": content},
        )
        conn.execute(text("INSERT INTO tags VALUES ('r', 'v1', :digest, 0)"), {"digest": digest_of(content)})
    engine.dispose()
    migrate(url)
    server = StorageServer(tmp_path, clock, 0)
    server.database.start()
    collector = GarbageCollector(server.database, server.storage.blobs, clock)
    assert await collector.collect_all(0) == Collected(blobs=1, files=1)
    organization = Organization("o", "team", "team")
    layer = await server.registry.open_blob(organization, "team/app", digest_of(b"layer"))
    assert b"".join([chunk async for chunk in layer.chunks()]) == b"layer"
    await asyncio.to_thread(server.storage.close)
    await asyncio.to_thread(server.database.close)
