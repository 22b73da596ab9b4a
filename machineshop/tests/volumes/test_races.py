"""What two do with a volume at once, on two servers where the database lets them: one is first, and the other knows."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator

import pytest

from factory import AnyArtifact, Clock
from files.shop import Shop
from machineshop.errors import Conflict, InvalidRequest, NotFound, VolumeMounted, VolumeUnusable
from machineshop.models import StoredFile
from machineshop.runtime.base import Capacity
from machineshop.services.deployments import DeploymentService
from machineshop.services.leftovers import Leftovers
from machineshop.services.volume_rules import Claim, VolumeContent, VolumeFields
from machineshop.services.volumes import VolumeService
from machineshop.store import files as stored_files
from machineshop.store import volume_removal
from machineshop.store.database import Database
from machineshop.store.files import FileRecord
from volumes.conftest import VOLUMES, Volumes

ROUNDS = 12


class Other:
    """Another server on the same database, or the same one where only one may be."""

    def __init__(self, database: Database, shop: Shop, clock: Clock) -> None:
        self.database = database
        self.volumes = VolumeService(database, Leftovers(database, shop.storage, clock), lambda _: None, clock)
        self.deployments = DeploymentService(database, AnyArtifact(), lambda: Capacity(2, 8, 0), frozenset(), clock)


@pytest.fixture
async def other(database_url: str, database: Database, shop: Shop, clock: Clock) -> AsyncIterator[Other]:
    if not database.is_shared:
        yield Other(database, shop, clock)
        return
    second = Database(database_url)
    second.start()
    yield Other(second, shop, clock)
    await asyncio.to_thread(second.close)


def record(team: Volumes, name: str, blob_key: str, digest: str | None = None) -> FileRecord:
    file = StoredFile(project_id=team.project_id, name=name, size=1, etag="e", created_at=1.0, digest=digest)
    return FileRecord(file, blob_key)


async def test_what_is_stored_beside_a_seal_is_in_it_or_refused(team: Volumes, other: Other) -> None:
    put = stored_files.put_file
    for number in range(ROUNDS):
        name = f"v{number}"
        await team.create(name, first=b"x")

        async def store(path: str, name: str = name) -> str | None:
            try:
                await team.shop.database.write(put, record(team, f"{name}/0/{path}", path))
            except Conflict:
                return None
            return path

        stores = [asyncio.create_task(store(f"f{each}")) for each in range(20)]
        await asyncio.sleep(0)
        await other.volumes.seal(team.project_id, name)
        sealed = {file.name for file in (await other.volumes.describe(team.project_id, name)).files}
        stored = {f"{name}/0/{path}" for path in await asyncio.gather(*stores) if path is not None}
        last = {file.name for file in (await other.volumes.describe(team.project_id, name)).files}
        assert last == sealed == stored | {f"{name}/0/first"}


async def test_a_volume_is_mounted_or_deleted_and_never_both(team: Volumes, other: Other) -> None:
    mounted = 0
    for number in range(ROUNDS):
        name, deployment = f"v{number}", f"user-{number}"
        await team.create(name, a=b"x")

        async def mount(name: str = name, deployment: str = deployment) -> bool:
            fields = {"name": deployment, "image": "registry/ns/hello@sha256:1", "gpu_type": "none"}
            try:
                mounts = [{"name": name, "mount_path": "/m"}]
                await other.deployments.create(team.project_id, {**fields, "volumes": mounts})
            except VolumeUnusable:
                return False
            return True

        async def delete(name: str = name) -> bool:
            try:
                await team.shop.volumes.delete(team.project_id, name)
            except VolumeMounted:
                return False
            return True

        is_mounted, is_deleted = await asyncio.gather(mount(), delete())
        assert is_mounted != is_deleted
        mounted += is_mounted
        assert (await team.client.get(f"{VOLUMES}/{name}")).status_code == (200 if is_mounted else 404)
    assert 0 <= mounted <= ROUNDS


async def test_two_who_make_the_next_version_make_one(team: Volumes, other: Other) -> None:
    await team.create(a=b"x")
    await team.upload("weights/1/a", b"y")
    content = VolumeContent(source_prefix="weights/1")

    async def update(service: VolumeService) -> bool:
        try:
            await service.update(team.project_id, "weights", VolumeFields(content=content))
        except InvalidRequest:
            return False
        return True

    made = await asyncio.gather(*(update(service) for service in (team.shop.volumes, other.volumes) * 3))
    assert sum(made) == 1
    seen = await team.describe()
    assert (seen["current_version"], seen["content"]["files_count"]) == (1, 1)


async def test_bytes_are_there_as_long_as_a_row_names_them(team: Volumes, other: Other, shop: Shop) -> None:
    """Files that share bytes come and go on both servers: whatever row is left can be read, and no blob is too many."""
    contents = [bytes([65 + number]) * 8 for number in range(3)]
    chance = random.Random(7)
    await team.create(seed=contents[0])
    digests = [_digest(content) for content in contents]

    async def upload(path: str) -> None:
        await team.upload(f"weights/0/{path}", chance.choice(contents))

    async def delete(path: str) -> None:
        await team.client.delete(f"/v1/storage/weights/0/{path}")

    async def link(path: str) -> None:
        number = chance.randrange(3)
        await other.volumes.claim(team.project_id, "weights", 0, [Claim(path, 8, digests[number])])

    for _ in range(ROUNDS):
        deeds = [chance.choice((upload, delete, link, link))(f"f{chance.randrange(6)}") for _ in range(12)]
        await asyncio.gather(*deeds)
    seen = await team.describe()
    for file in seen["content"]["files"]:
        content = await team.read(f"weights/0/{file['name']}")
        assert content is not None
        assert _digest(content) == file["sha256"]
    # Two that store the same new name on two servers at once: the bytes of the first are the sweep's.
    shop.clock.now += 120
    await shop.new_service().clean(shop.clock.now)
    assert shop.blobs() == await shop.rows()


async def test_a_crash_before_the_bytes_of_a_volume_are_removed_leaves_none(team: Volumes, shop: Shop) -> None:
    await team.create(a=b"x", b=b"y")
    await shop.database.write(volume_removal.delete_volume, team.project_id, "weights", shop.clock.now)
    await shop.database.write(volume_removal.remove_files, 10)
    assert len(shop.blobs()) == 2
    shop.clock.now += 120
    await shop.new_service().clean(shop.clock.now)
    assert shop.blobs() == set()


async def test_the_answers_of_the_losers_say_what_happened(team: Volumes, other: Other) -> None:
    await team.create(a=b"x")
    await other.volumes.delete(team.project_id, "weights")
    with pytest.raises(NotFound):
        await team.shop.volumes.seal(team.project_id, "weights")
    with pytest.raises(InvalidRequest):
        await team.mount("user", {"name": "weights", "mount_path": "/m"})


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
