"""The next version from the same place in an object storage: what has not changed there is not asked for again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machineshop.blobs.origin import OriginObject, tag_of
from machineshop.blobs.s3_origin import S3Origin
from volumes.elsewhere import Elsewhere, files_of
from volumes.fake_s3 import Request, Server, entry, fake_s3, listing

FILES = {f"f{number:02}": b"%d" % number * 1000 for number in range(12)}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects whose bytes were asked for since it was cleared."""
    paths: list[str] = []
    open_object = S3Origin.open

    def noted(self: S3Origin, found: OriginObject) -> Any:
        paths.append(found.path)
        return open_object(self, found)

    monkeypatch.setattr(S3Origin, "open", noted)
    return paths


@pytest.fixture
async def copied(elsewhere: Elsewhere, asked: list[str]) -> Elsewhere:
    """A volume whose version 0 is copied."""
    elsewhere.put(**FILES)
    await elsewhere.give_keys()
    await elsewhere.create()
    await elsewhere.pass_until("ready")
    assert sorted(asked) == sorted(FILES)
    asked.clear()
    return elsewhere


async def test_what_has_not_changed_is_not_asked_for(copied: Elsewhere, asked: list[str]) -> None:
    shop = copied.team.shop
    before = shop.blobs()
    for number in (1, 2):
        seen = await copied.update()
        assert (seen["current_version"], seen["content"]["files_count"]) == (number, len(FILES))
        assert [await shop.read(f"weights/{number}/{name}") for name in FILES] == list(FILES.values())
    assert asked == []
    assert shop.blobs() == before, "they share their bytes"


async def test_what_has_changed_is_copied_and_nothing_else(copied: Elsewhere, asked: list[str]) -> None:
    changed = FILES["f03"][:-1] + b"!"
    copied.put(f03=changed, new=b"new")
    copied.objects.client.delete_object(Bucket=copied.url.bucket, Key=f"{copied.url.prefix}f07")
    seen = await copied.update()
    assert sorted(asked) == ["f03", "new"]
    assert set(files_of(seen)) == set(FILES) - {"f07"} | {"new"}
    assert await copied.team.read("weights/1/f03") == changed
    assert await copied.team.read("weights/0/f03") == FILES["f03"]
    assert await copied.team.read("weights/0/f07") == FILES["f07"]


async def test_what_lies_in_another_place_is_copied(copied: Elsewhere, asked: list[str]) -> None:
    copied.url = copied.objects.make_place()
    copied.put(**FILES)
    await copied.update()
    assert sorted(asked) == sorted(FILES)


async def test_another_volume_gives_nothing(copied: Elsewhere, asked: list[str]) -> None:
    await copied.create("other")
    await copied.pass_until("ready", "other")
    assert sorted(asked) == sorted(FILES)


async def test_bytes_that_are_gone_are_copied_again(copied: Elsewhere, asked: list[str]) -> None:
    shop = copied.team.shop
    lost = _blob_of(shop.folder / "blobs", FILES["f05"])
    lost.unlink()
    await copied.update()
    assert asked == ["f05"]
    assert await shop.read("weights/1/f05") == FILES["f05"]


async def test_a_draft_is_not_taken_for_an_unchanged_object(copied: Elsewhere, asked: list[str]) -> None:
    draft = {name: bytes(len(data)) for name, data in list(FILES.items())[:2]}
    for name, data in draft.items():
        await copied.team.upload(f"weights/1/{name}", data)
    await copied.update()
    assert asked == []
    assert [await copied.team.read(f"weights/1/{name}") for name in draft] == [FILES[name] for name in draft]


async def test_a_volume_that_goes_meanwhile_gets_nothing(
    copied: Elsewhere, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = copied.team.shop
    size = shop.storage.blobs.size

    async def deleted_meanwhile(key: str) -> int | None:
        if (await copied.team.client.get("/v1/deployments/storage/volumes/weights")).status_code == 200:
            await copied.team.answer("DELETE", "/v1/deployments/storage/volumes/weights")
        return await size(key)

    await copied.team.answer("PATCH", "/v1/deployments/storage/volumes/weights", {"content": copied.content()})
    monkeypatch.setattr(shop.storage.blobs, "size", deleted_meanwhile)
    await copied.sync.run_once(copied.clock.now)
    await copied.settled()
    assert asked == []
    assert await copied.team.read("weights/1/f00") is None


async def test_the_same_etag_under_another_address_says_nothing(wrong: Elsewhere, origin: Server) -> None:
    """A project that brings another storage, which says that its objects are the old ones, gets that one's bytes."""

    def script(data: bytes) -> Callable[[Request], None]:
        return lambda request: request.answer(listing(entry(f"{wrong.url.prefix}a", 4)) if request.is_list else data)

    origin.script = script(b"mine")
    await wrong.create()
    await wrong.pass_until("ready")
    with fake_s3() as another:
        another.script = script(b"ours")
        wrong.allowed.add(another.port)
        await wrong.give_keys("others", endpoint_url=another.endpoint)
        await wrong.update("others")
        assert await wrong.team.read("weights/1/a") == b"ours"
        assert await wrong.team.read("weights/0/a") == b"mine"


@pytest.mark.parametrize(
    "other",
    [
        {"address": "http://b"},
        {"uri": "s3://b"},
        {"path": "b"},
        {"size": 2},
        {"etag": '"b"'},
        {"modified_at": 2.0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_tag_says_all_that_tells_objects_apart(other: dict[str, Any]) -> None:
    facts: dict[str, Any] = {"path": "a", "size": 1, "etag": '"a"', "modified_at": 1.0}

    def tag(address: str = "http://a", uri: str = "s3://a", **more: Any) -> str:
        return tag_of(address, uri, OriginObject(**facts | more))

    assert tag() == tag()
    assert tag(**other) != tag()


def _blob_of(folder: Path, data: bytes) -> Path:
    (found,) = (path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == data)
    return found
