"""Many small files in one request: all of them or none, each as if it had come by itself."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
from sqlalchemy import text

from factory import eventually
from machineshop.api.volumes import BATCH_LIMIT_BYTES
from machineshop.errors import DiskFull
from machineshop.models import Scope
from machineshop.services.volume_rules import MAX_BATCH
from machineshop.store.database import Database
from volumes.conftest import VOLUMES, Volumes, batch_path, batched, claimed, refusal

FILES = {f"{number % 3}/ä {number}.bin": b"%d" % number * number for number in range(MAX_BATCH)}


async def test_a_batch_brings_files(team: Volumes) -> None:
    await team.create()
    answer = await team.batch(0, FILES)
    size = sum(map(len, FILES.values()))
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"object": "file_batch", "version": 0, "files_count": MAX_BATCH, "size": size}
    files = (await team.describe())["content"]["files"]
    assert {file["name"]: file["sha256"] for file in files} == {
        path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()
    }
    assert await team.read("weights/0/0/ä 0.bin") == b""
    assert await team.read("weights/0/1/ä 499.bin") == FILES["1/ä 499.bin"]
    assert set((await team.claim(0, FILES)).values()) == {"present"}
    assert len(team.shop.blobs()) == MAX_BATCH


async def test_a_batch_takes_the_place_of_what_was_there(team: Volumes) -> None:
    await team.create(a=b"old", b=b"stays")
    for _ in range(2):  # as after an answer that was lost
        assert (await team.batch(0, {"a": b"new", "c": b"more"})).status_code == 200
        assert await team.read("weights/0/a") == b"new"
        assert team.shop.blobs() == await team.shop.rows(), "what nobody names any more is gone"
    assert [file["name"] for file in (await team.describe())["content"]["files"]] == ["a", "b", "c"]


async def test_a_batch_is_for_the_next_version_too_and_by_the_volumes_id(team: Volumes) -> None:
    made = await team.create(a=b"a")
    assert (await team.batch(1, {"b": b"b"}, made["id"])).status_code == 200
    seen = await team.update("weights", 1)
    assert [file["name"] for file in seen["content"]["files"]] == ["b"]


async def test_a_version_that_is_settled_takes_no_batch(team: Volumes) -> None:
    await team.create(a=b"a")
    await team.seal()
    answer = await team.batch(0, {"b": b"b"})
    assert refusal(answer)[:2] == (409, "volume_sealed")
    assert answer.headers["x-should-retry"] == "false"
    assert refusal(await team.batch(2, {"b": b"b"}))[:2] == (400, "invalid_request")
    assert refusal(await team.batch(0, {"b": b"b"}, "other"))[:2] == (404, "not_found")
    assert len(team.shop.blobs()) == 1


async def test_a_volume_that_goes_while_a_batch_comes_is_not_found(team: Volumes) -> None:
    await team.create()
    body = batched(FILES)

    async def pieces() -> AsyncIterator[bytes]:
        yield body[:100_000]
        await team.answer("DELETE", f"{VOLUMES}/weights")
        yield body[100_000:]

    assert refusal(await team.client.put(batch_path(0), content=pieces()))[:2] == (404, "not_found")
    assert team.shop.blobs() == set()


async def test_a_batch_beside_a_seal_is_in_the_version_as_a_whole_or_not(team: Volumes) -> None:
    for number in range(12):
        name = f"v{number}"
        await team.create(name, first=b"x")
        batches = [
            asyncio.create_task(team.batch(0, {f"{each}-{file}": b"y" for file in range(20)}, name))
            for each in range(4)
        ]
        await asyncio.sleep(0)
        await team.seal(name)
        sealed = {file["name"] for file in (await team.describe(name))["content"]["files"]}
        codes = [answer.status_code for answer in await asyncio.gather(*batches)]
        stored = {f"{each}-{file}" for each, code in enumerate(codes) if code == 200 for file in range(20)}
        assert set(codes) <= {200, 409}
        assert sealed == stored | {"first"}
    assert team.shop.blobs() == await team.shop.rows()


def a_line(**changes: object) -> bytes:
    return json.dumps({"files": [{**claimed("a", b"abc"), **changes}]}).encode() + b"\n"


REFUSED: Mapping[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "malformed_body", "no line feed"),
    "no-bytes": (a_line()[:-1], "malformed_body", "no line feed"),
    "no-json": (b"abc\nabc", "malformed_body", "not valid JSON"),
    "no-files": (b'{"files": []}\n', "malformed_body", "at least 1 entry"),
    "no-digest": (b'{"files": [{"path": "a", "size": 1}]}\na', "malformed_body", "sha256"),
    "too-few": (a_line() + b"ab", "invalid_request", "have 3 bytes together, and 2 came"),
    "too-many": (a_line() + b"abcd", "invalid_request", "have 3 bytes together, and 4 came"),
    "others": (a_line() + b"abd", "digest_mismatch", "'a' have another SHA-256"),
    "above": (a_line(path="../a") + b"abc", "invalid_request", "'../a'"),
    "absolute": (a_line(path="/a") + b"abc", "invalid_request", "'/a'"),
    "within": (a_line(path="b/../../a") + b"abc", "invalid_request", "'b/../../a'"),
    "zero": (a_line(path="a\0") + b"abc", "invalid_request", "control characters"),
    "long": (a_line(path="a" * 510) + b"abc", "invalid_request", "1 to 512 characters"),
    "deep": (a_line(path="a/" * 32 + "a") + b"abc", "invalid_request", "fewer folders"),
    "twice": (batched({"a": b"abc"}).replace(b"]", b", " + a_line()[11:-2]) + b"abc", "invalid_request", "path twice"),
    "many": (batched({str(number): b"" for number in range(MAX_BATCH + 1)}), "malformed_body", "at most 500 entries"),
}


@pytest.mark.parametrize("kind", list(REFUSED))
async def test_a_batch_that_is_wrong_stores_nothing(team: Volumes, kind: str) -> None:
    body, code, says = REFUSED[kind]
    await team.create()
    answer = await team.client.put(batch_path(0), content=body)
    assert refusal(answer)[:2] == (400, code)
    assert says in refusal(answer)[2]
    assert team.shop.blobs() == set()


async def test_a_batch_has_a_bound(team: Volumes) -> None:
    await team.create()
    answer = await team.client.put(batch_path(0), content=batched({"a": bytes(BATCH_LIMIT_BYTES)}))
    assert refusal(answer)[:2] == (413, "payload_too_large")
    assert "fewer files at a time" in refusal(answer)[2]
    assert team.shop.blobs() == set()


async def test_a_batch_that_breaks_off_stores_nothing(team: Volumes) -> None:
    await team.create()
    broken = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield batched(FILES)[:100_000]
        broken.set()
        await asyncio.Event().wait()

    sending = asyncio.create_task(team.client.put(batch_path(0), content=half()))
    await broken.wait()
    sending.cancel()
    with pytest.raises((asyncio.CancelledError, httpx.TransportError)):
        await sending
    assert (await team.describe())["content"]["files_count"] == 0
    assert team.shop.blobs() == set()
    assert (await team.batch(0, FILES)).status_code == 200


async def test_a_full_disk_keeps_no_part_of_a_batch(team: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    await team.create()
    put_all = team.shop.storage.blobs.put_all

    async def half(contents: Mapping[str, memoryview]) -> None:
        await put_all(dict(list(contents.items())[:3]))
        raise DiskFull

    with monkeypatch.context() as patched:
        patched.setattr(team.shop.storage.blobs, "put_all", half)
        assert refusal(await team.batch(0, FILES))[:2] == (507, "disk_full")
    assert (await team.describe())["content"]["files_count"] == 0
    assert team.shop.blobs() == set()
    assert (await team.batch(0, FILES)).status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_database_without_room_keeps_no_part_of_a_batch(team: Volumes, database: Database) -> None:
    await team.create()
    # The writer's connection: it is replaced after an error, and the next one may grow the file again.
    await database.write(lambda conn: conn.exec_driver_sql("PRAGMA max_page_count = 1"))
    assert refusal(await team.batch(0, FILES))[:2] == (503, "store_unavailable")
    assert team.shop.blobs() == set()
    assert (await team.batch(0, FILES)).status_code == 200


async def test_a_deleted_project_takes_no_batch(team: Volumes, database: Database) -> None:
    await team.create()
    gone = text("UPDATE projects SET deleted_at = 1 WHERE id = :id")
    await database.write(lambda conn: conn.execute(gone, {"id": team.project_id}))
    assert refusal(await team.batch(0, {"a": b"a"}))[0] in {401, 404}
    assert team.shop.blobs() == set()


async def test_who_may_send_a_batch(team: Volumes) -> None:
    await team.create()
    for scope, status in ((Scope.VIEWER, 403), (Scope.DEVELOPER, 200)):
        _, key = await team.shop.identity.create_key("default", scope, scope)
        client = team.shop.client(key)
        assert (await client.put(batch_path(0), content=batched({"a": b"a"}))).status_code == status
    replica = await team.shop.replica("replica-1")
    assert (await replica.client.put(batch_path(0), content=batched({"a": b"a"}))).status_code == 403
    assert (await team.shop.client(None).put(batch_path(0), content=batched({"a": b"a"}))).status_code == 401


async def test_the_shorter_path_is_the_same(team: Volumes) -> None:
    await team.create()
    path = batch_path(0).replace("/v1/deployments/", "/v1/")
    assert (await team.client.put(path, content=batched({"a": b"a"}))).status_code == 200
    await eventually(lambda: len(team.shop.blobs()) == 1)
    assert VOLUMES not in path
