"""A volume that is deleted: nobody sees it from then on, and its files go some at a time."""

import pytest

from files.shop import Shop
from machineshop.services import volume_removal as service
from machineshop.store import volume_removal
from volumes.conftest import VOLUMES, Volumes

FILES = {f"f{number}": b"%d" % number for number in range(7)}


@pytest.fixture
async def deleted(team: Volumes) -> Volumes:
    """A volume that has just been deleted, and one that stays."""
    await team.create("weights", **FILES)
    await team.create("stays", **FILES)
    await team.answer("DELETE", f"{VOLUMES}/weights")
    return team


async def test_nothing_of_it_is_seen_before_any_of_it_is_removed(deleted: Volumes, shop: Shop) -> None:
    assert len(shop.blobs()) == 14
    assert (await deleted.refused("GET", f"{VOLUMES}/weights"))[0] == 404
    assert [each["name"] for each in (await deleted.answer("GET", VOLUMES))["data"]] == ["stays"]
    assert (await deleted.refused("GET", f"{VOLUMES}/weights/versions/0/files"))[0] == 404
    assert await deleted.read("weights/0/f1") is None
    assert (await deleted.client.head("/v1/storage/weights/0/f1")).status_code == 404
    assert (await deleted.refused("DELETE", "/v1/storage/weights/0/f1"))[0] == 404
    assert (await deleted.refused("DELETE", f"{VOLUMES}/weights"))[0] == 404


async def test_its_files_go_some_at_a_time_and_a_crash_forgets_none(
    deleted: Volumes, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "REMOVED_AT_A_TIME", 3)
    gone = await shop.database.write(volume_removal.remove_files, 3)
    assert gone is not None
    assert len(gone) == 3, "their blobs are what the crash leaves"
    assert await shop.remove_gone() == 4
    assert await shop.remove_gone() == 0
    shop.clock.now += 120
    await shop.new_service().clean(shop.clock.now)
    assert len(shop.blobs()) == 7
    assert shop.blobs() == await shop.rows()
    assert await deleted.read("stays/0/f1") == FILES["f1"]


async def test_its_name_is_free_at_once(deleted: Volumes, shop: Shop) -> None:
    await deleted.create(f1=b"new")
    # What the deleted one has under these names is not what this one has.
    assert await deleted.claim(0, FILES) == dict.fromkeys(FILES, "missing")
    assert (await deleted.batch(0, {"f2": FILES["f2"]})).status_code == 200
    assert await shop.remove_gone() == 5
    seen = await deleted.describe()
    assert [file["name"] for file in seen["content"]["files"]] == ["f1", "f2"]
    assert await deleted.read("weights/0/f1") == b"new"
    assert shop.blobs() == await shop.rows()


async def test_a_file_of_its_name_that_is_nobodys_stays(deleted: Volumes, shop: Shop) -> None:
    await deleted.upload("weights/0/f1", b"of no volume")
    assert await shop.remove_gone() == 6
    assert await deleted.read("weights/0/f1") == b"of no volume"
    assert shop.blobs() == await shop.rows()


async def test_several_go_one_after_the_other(team: Volumes, shop: Shop) -> None:
    for name in ("a", "b", "c"):
        await team.create(name, **FILES)
        await team.answer("DELETE", f"{VOLUMES}/{name}")
    assert await shop.remove_gone() == 21
    assert shop.blobs() == set()
