"""Volumes that deployments mount: which version, and what that keeps from being deleted."""

import pytest

from machineshop.errors import VolumeUnusable
from machineshop.models import VolumeMount
from machineshop.store import revisions
from machineshop.store.database import Database
from volumes.conftest import MOUNT, VOLUMES, Volumes, refusal


async def test_a_mount_pins_the_version(team: Volumes) -> None:
    made = await team.create(a=b"0")
    await team.update("weights", 1, a=b"1")
    deployment = await team.mount("user", MOUNT)
    assert deployment.config.volumes == (VolumeMount("weights", "/models", 1, made["id"]),)
    assert (await team.describe())["mounted_by"] == [deployment.id]
    assert (await team.describe(number=0))["mounted_by"] == []

    await team.update("weights", 2, a=b"2")
    service, project_id = team.deployments, team.project_id
    kept = await service.update(project_id, "user", {"volumes": [MOUNT]})
    assert kept.config.volumes[0].version == 1, "an update keeps what is mounted"
    assert kept.revision_number == 1, "so nothing has changed"
    newer = await service.update(project_id, "user", {"volumes": [{**MOUNT, "version": 2}]})
    assert (newer.config.volumes[0].version, newer.revision_number) == (2, 2)
    team.shop.clock.now += revisions.UNKNOWN_SECONDS
    assert (await team.describe())["version_history"]["1"]["mounted_by"] == []
    await team.update("weights", 3, a=b"3")
    await team.mount("another", MOUNT)
    await team.mount("third", MOUNT)
    (listed,) = (await team.answer("GET", VOLUMES))["data"]
    assert (len(listed["mounted_by"]), listed["mounts_count"]) == (2, 3), "the second counts all versions"
    assert (await team.describe(number=0))["mounts_count"] == 3
    back = await service.rollback(project_id, "user", "1")
    assert back.config.volumes[0].version == 1


async def test_what_is_not_there_is_not_mounted(team: Volumes) -> None:
    await team.create(a=b"0")
    with pytest.raises(VolumeUnusable, match="no volume 'other'"):
        await team.mount("user", {"name": "other", "mount_path": "/m"})
    with pytest.raises(VolumeUnusable, match="has no version 3"):
        await team.mount("user", {**MOUNT, "version": 3})
    # Whoever sends an id of a volume mounts the one that is named all the same.
    deployment = await team.mount("user", {**MOUNT, "volume_id": "stolen"})
    assert deployment.config.volumes[0].volume_id == (await team.describe())["id"]


async def test_a_mounted_volume_is_not_deleted(team: Volumes) -> None:
    await team.create(a=b"0")
    await team.mount("user", MOUNT)
    answer = await team.client.delete(f"{VOLUMES}/weights")
    assert refusal(answer)[:2] == (409, "volume_mounted")
    assert "'user'" in refusal(answer)[2]
    assert answer.headers["x-should-retry"] == "false"

    await team.deployments.update(team.project_id, "user", {"volumes": []})
    team.shop.clock.now += revisions.UNKNOWN_SECONDS
    await team.upload("weights/1/draft", b"for a version that is never made")
    assert (await team.answer("DELETE", f"{VOLUMES}/weights"))["deleted"] is True
    assert (await team.refused("GET", f"{VOLUMES}/weights"))[0] == 404
    assert await team.read("weights/0/a") is None
    assert await team.read("weights/1/draft") is None
    await team.shop.remove_gone()
    assert team.shop.blobs() == set()
    # An older revision that mounted it cannot come back, even where another has the name.
    await team.create(a=b"another")
    with pytest.raises(VolumeUnusable, match="was deleted"):
        await team.deployments.rollback(team.project_id, "user", "1")


async def test_what_still_serves_mounts_its_volume_until_the_next_revision_has_been_ready(
    team: Volumes, database: Database
) -> None:
    await team.create(a=b"0")
    await team.create("other", a=b"0")
    service, project_id = team.deployments, team.project_id
    first = await team.mount("user", MOUNT)
    await database.write(revisions.note_ready, first.id, first.revision_id, 1.0)
    await service.update(project_id, "user", {"volumes": [{**MOUNT, "name": "other"}]})
    second = await service.update(project_id, "user", {"image": "registry/ns/hello@sha256:2"})

    assert (await team.describe())["mounted_by"] == [first.id], "its replicas go on until the new ones are ready"
    assert (await team.describe("other"))["mounted_by"] == [first.id], "two revisions count once"
    status, code, message = await team.refused("DELETE", f"{VOLUMES}/weights")
    assert (status, code) == (409, "volume_mounted")
    assert "is mounted by 'user' (revision 1 may serve until revision 3 has been ready): delete it once" in message
    assert "'user': delete it once" in (await team.refused("DELETE", f"{VOLUMES}/other"))[2], "the active one mounts it"
    await team.update("weights", 1, a=b"1")
    assert (await team.describe())["version_history"]["0"]["mounted_by"] == [first.id]

    await database.write(revisions.note_ready, first.id, second.revision_id, 2.0)
    assert (await team.describe(number=0))["mounted_by"] == []
    assert (await team.answer("DELETE", f"{VOLUMES}/weights"))["deleted"] is True
    with pytest.raises(VolumeUnusable, match="go back to another revision, or deploy with a volume that there is"):
        await service.rollback(project_id, "user", "1")


async def test_what_was_replaced_before_anybody_saw_whether_it_is_ready_may_serve_too(
    team: Volumes, database: Database
) -> None:
    await team.create(a=b"0")
    service, project_id, clock = team.deployments, team.project_id, team.shop.clock
    first = await team.mount("user", MOUNT)
    await service.update(project_id, "user", {"volumes": []})
    refused = await team.refused("DELETE", f"{VOLUMES}/weights")
    assert refused[:2] == (409, "volume_mounted")
    assert "(revision 1 may serve until revision 2 has been ready)" in refused[2]

    await database.write(revisions.note_ready, first.id, first.revision_id, clock.now)
    clock.now += revisions.UNKNOWN_SECONDS
    assert (await team.refused("DELETE", f"{VOLUMES}/weights"))[:2] == (409, "volume_mounted"), "it was seen to serve"
