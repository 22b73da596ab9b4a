"""Files of volumes that come in parts are hashed; one whose bytes are not in the storage says so, and waits."""

from pathlib import Path

import pytest

from machineshop.errors import ArtifactMissing
from machineshop.services import volume_files
from machineshop.services.volume_files import HASH_AGAIN_SECONDS
from volumes.conftest import VOLUMES, Volumes


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what cannot be hashed would be in the way."""
    monkeypatch.setattr(volume_files, "_BATCH", 1)


async def lose(team: Volumes, *paths: str) -> Path:
    """Upload files in parts, and take the bytes of the last one away; returns where they were."""
    new: set[str] = set()
    for path in paths:
        there = team.shop.blobs()
        assert (await team.upload_in_parts(f"weights/0/{path}", path.encode(), b"-")).status_code == 200
        new = team.shop.blobs() - there
        team.shop.clock.now += 1
    blob = team.shop.folder / "blobs" / new.pop()
    blob.unlink()
    return blob


async def test_bytes_that_are_gone_are_in_nobodys_way(team: Volumes) -> None:
    await team.create()
    await lose(team, "gone")
    await team.upload_in_parts("weights/0/whole", b"1", b"2")
    hash_new = team.shop.contents.hash_new
    assert [await hash_new(team.shop.clock.now) for _ in range(4)] == [1, 1, 0, 0]
    seen = await team.describe()
    assert [bool(file["sha256"]) for file in seen["content"]["files"]] == [False, True]
    assert seen["status_message"].startswith("The bytes of 'gone' are not in the platform's storage:")
    (listed,) = (await team.answer("GET", VOLUMES))["data"]
    assert listed["status_message"] == seen["status_message"]
    assert await hash_new(team.shop.clock.now + HASH_AGAIN_SECONDS) == 1
    team.shop.clock.now += HASH_AGAIN_SECONDS
    await team.upload_in_parts("weights/0/later", b"1", b"2")
    assert [await hash_new(team.shop.clock.now) for _ in range(3)] == [1, 1, 0], "what is new goes first"
    assert all(file["sha256"] for file in (await team.describe())["content"]["files"][1:])


async def test_bytes_that_are_back_are_hashed(team: Volumes) -> None:
    await team.create()
    blob = await lose(team, "a")
    assert await team.shop.contents.hash_new(team.shop.clock.now) == 1
    blob.write_bytes(b"a-")
    assert await team.shop.contents.hash_new(team.shop.clock.now + HASH_AGAIN_SECONDS) == 1
    seen = await team.describe()
    assert (seen["status_message"], len(seen["content"]["files"][0]["sha256"])) == ("", 64)


@pytest.mark.parametrize("how", ["parts", "whole", "batch", "delete"])
async def test_what_is_uploaded_again_is_whole(team: Volumes, how: str) -> None:
    await team.create(b=b"x")
    await lose(team, "a")
    assert await team.claim(0, {"a": b"a-"}) == {"a": "hashing"}
    await team.shop.contents.hash_new(team.shop.clock.now)
    assert await team.claim(0, {"a": b"a-"}) == {"a": "missing"}
    if how == "parts":
        assert (await team.upload_in_parts("weights/0/a", b"a", b"-")).status_code == 200
        assert await team.shop.contents.hash_new(team.shop.clock.now) == 1
    elif how == "whole":
        await team.upload("weights/0/a", b"a-")
    elif how == "batch":
        assert (await team.batch(0, {"a": b"a-"})).status_code == 200
    else:
        assert (await team.client.delete("/v1/storage/weights/0/a")).status_code == 200
    assert (await team.describe())["status_message"] == ""
    await team.seal()


async def test_whoever_mounts_what_is_gone_is_told_so(team: Volumes) -> None:
    made = await team.create()
    await lose(team, "a", "b")
    await team.seal()
    with pytest.raises(ArtifactMissing, match=r"'weights/0/b' are not in the platform's storage"):
        await team.shop.contents.volume_files(team.project_id, made["id"], 0)
    await team.update("weights", 1, b=b"-")
    assert (await team.describe())["status_message"] == ""
    assert "'b' are not in" in (await team.describe())["version_history"]["0"]["status_message"]
    await team.shop.volumes.delete(team.project_id, "weights")
    await team.shop.remove_gone()
    assert await team.shop.contents.hash_new(team.shop.clock.now + HASH_AGAIN_SECONDS) == 0
