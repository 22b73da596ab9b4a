"""Files that users upload go when they are as old as they may get; nothing else does."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from files.shop import Shop, output
from machineshop.config import KeptFiles, Settings, check, parse_kept_files
from machineshop.errors import InvalidRequest
from machineshop.services import file_retention
from machineshop.services.file_retention import DAY_SECONDS, FileRetention


async def test_of_the_rules_for_a_name_the_longest_counts_and_outputs_and_volumes_stay(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_retention, "REMOVED_AT_A_TIME", 2)
    replica, client = await shop.replica("r1"), shop.client()
    claim = await replica.take_new()
    await replica.upload(claim, "output", b"output")
    await replica.finish(claim)
    volume = {"name": "words", "type": "readOnly", "content": {"type": "files", "source_prefix": "words/0"}}
    assert (await client.post("/v1/storage/volumes", json=volume)).status_code == 200
    names = ["a", "b", "c", "inputs/a", "inputs/kept/a", "words/0/a"]
    for name in names:
        await _put(shop, name)
    rules = [KeptFiles("", 3), KeptFiles("inputs/", 1), KeptFiles("inputs/kept/", 5)]
    retention = FileRetention(shop.database, shop.files.leftovers, rules)
    began = shop.clock.now

    async def left(days: float) -> list[str]:
        await retention.run_once(began + days * DAY_SECONDS)
        return [name for name in names if await shop.read(name) is not None]

    assert await left(0.9) == names
    assert await left(1.1) == ["a", "b", "c", "inputs/kept/a", "words/0/a"]
    assert await left(3.1) == ["inputs/kept/a", "words/0/a"]
    assert await left(1000) == ["words/0/a"]
    assert await shop.read(output(claim, "output")) == b"output"
    assert len(shop.blobs()) == 2


async def test_one_that_is_uploaded_anew_begins_anew(shop: Shop) -> None:
    retention = FileRetention(shop.database, shop.files.leftovers, [KeptFiles("", 1)])
    await _put(shop, "a")
    shop.clock.now += 2 * DAY_SECONDS
    await _put(shop, "a")
    assert await retention.run_once(shop.clock.now) == 0
    assert await retention.run_once(shop.clock.now + DAY_SECONDS + 1) == 1
    assert shop.blobs() == set()


def test_rules_as_they_are_written() -> None:
    assert parse_kept_files(["inputs/=30", "=365", "a=b=1"]) == (
        KeptFiles("inputs/", 30),
        KeptFiles("", 365),
        KeptFiles("a=b", 1),
    )


@pytest.mark.parametrize(
    "texts", [("30",), ("a=",), ("a=0",), ("a=36501",), ("a=1d",), ("a=-1",), ("a=1", "a=2"), ("",)]
)
def test_rules_that_cannot_be_are_refused(texts: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest, match="--keep-files"):
        check(Settings(data_dir=Path("x"), kept_files=texts))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text() | st.from_regex(r"\A.{0,5}=[0-9]{0,7}\Z"))
def test_any_text_is_a_rule_or_refused(text: str) -> None:
    try:
        (rule,) = parse_kept_files([text])
    except InvalidRequest:
        return
    assert f"{rule.prefix}={rule.days}" == text or text.rpartition("=")[2].startswith("0")


async def _put(shop: Shop, name: str) -> None:
    client = shop.client()
    asked = await client.post("/v1/storage/upload-request", json={"filename": name})
    assert (await client.put(asked.json()["upload_url"]["url"], content=name.encode())).status_code == 200
