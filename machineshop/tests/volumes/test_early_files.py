"""Files that were stored for a version before it was made: all of them are in it, however it came about."""

import pytest

from files.shop import Shop
from machineshop.models import Volume, VolumeOrigin, VolumeVersion
from machineshop.services import volume_early
from machineshop.states import VolumeState
from machineshop.store import volume_files, volumes
from volumes.conftest import VOLUMES, Volumes
from volumes.elsewhere import Elsewhere

EARLY = {f"weights/0/f{number}": b"%d" % number for number in range(7)}
OTHERS = ("weights/00/x", "weights/01/x", "weights2/0/x", "weigh", "weights/1/next")


@pytest.fixture(autouse=True)
async def early(team: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files for the version 0 of a volume that is not made yet, and others, of which two are looked at at once."""
    monkeypatch.setattr(volume_early, "AT_A_TIME", 2)
    for name, data in EARLY.items():
        await team.upload(name, data)
    for name in OTHERS:
        await team.upload(name, b"other")


async def half_made(team: Volumes, shop: Shop, origin: VolumeOrigin | None = None) -> None:
    """The volume as a crash leaves it that falls between its first transaction and the second."""
    state = VolumeState.OPEN if origin is None else VolumeState.PENDING
    volume = Volume(
        id="v1", project_id=team.project_id, name="weights", current_version=0, created_at=1.0, updated_at=1.0
    )
    version = VolumeVersion(volume_id="v1", number=0, state=state, origin=origin, created_at=1.0)
    first = await shop.database.read(volume_files.loose, team.project_id, "weights", 0, "", 2)
    assert len(first) == 2
    await shop.database.write(volumes.insert, volume, version, first)


async def test_all_of_them_are_its_files_at_once(team: Volumes) -> None:
    made = await team.create()
    assert made["content"]["files_count"] == len(EARLY)
    assert {f"weights/0/{file['name']}" for file in made["content"]["files"]} == set(EARLY)
    made = await team.update("weights", 1)
    assert [file["name"] for file in made["content"]["files"]] == ["next"]
    assert [await team.read(name) for name in OTHERS] == [b"other"] * len(OTHERS)


async def test_a_crash_in_between_costs_none_of_them(team: Volumes, shop: Shop) -> None:
    await half_made(team, shop)
    assert (await team.describe())["content"]["files_count"] == 2
    await team.seal()
    seen = await team.describe()
    assert (seen["content"]["files_count"], seen["sealed_at"] is not None) == (len(EARLY), True)


async def test_what_is_sealed_takes_none(team: Volumes, shop: Shop) -> None:
    await team.create()
    await team.seal()
    volume = await shop.volumes.get(team.project_id, "weights")
    assert not await shop.database.write(volume_files.adopt, volume, 0, ["weigh"])
    await team.answer("DELETE", f"{VOLUMES}/weights")
    assert not await shop.database.write(volume_files.adopt, volume, 0, ["weigh"])


async def test_a_crash_leaves_none_of_them_to_what_is_copied(elsewhere: Elsewhere, shop: Shop) -> None:
    elsewhere.put(f1=b"theirs", f9=b"theirs")
    await elsewhere.give_keys()
    await half_made(elsewhere.team, shop, VolumeOrigin(uri=str(elsewhere.url), credentials_secret="s3-keys"))
    seen = await elsewhere.pass_until("ready")
    assert [file["name"] for file in seen["content"]["files"]] == ["f1", "f9"]
    assert await elsewhere.team.read("weights/0/f1") == b"theirs"
    assert await elsewhere.team.read("weights/0/f2") is None
    assert shop.blobs() == await shop.rows()
