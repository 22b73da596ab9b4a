"""Many small files in one answer: in the order that was asked for, of this version alone, or none."""

import asyncio
import hashlib
import json
from typing import Any

import httpx
import pytest

from factory import Clock
from machineshop.blobs.base import CHUNK_BYTES
from machineshop.models import Scope
from machineshop.services.volume_downloads import LIMIT_BYTES, READ_AT_ONCE
from machineshop.services.volume_rules import MAX_BATCH
from volumes.conftest import VOLUMES, Volumes, batch_path, claimed, refusal

FILES = {f"{number % 3}/ä {number}.bin": b"%d" % number * number for number in range(MAX_BATCH)}


async def ask(client: httpx.AsyncClient, paths: list[str], number: int = 0, name: str = "weights") -> httpx.Response:
    return await client.post(f"{batch_path(number, name)}/contents", json={"paths": paths})


def unpacked(answer: httpx.Response) -> dict[str, bytes]:
    """The files of an answer; each is what the line says of it."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-length"] == str(len(answer.content))
    line, _, data = answer.content.partition(b"\n")
    found, at = {}, 0
    for each in json.loads(line)["files"]:
        content = data[at : at + each["size"]]
        assert each["sha256"] == hashlib.sha256(content).hexdigest()
        found[each["path"]] = content
        at += each["size"]
    assert at == len(data)
    return found


async def test_files_come_in_the_order_that_was_asked_for(team: Volumes) -> None:
    await team.create()
    assert (await team.batch(0, FILES)).status_code == 200
    assert READ_AT_ONCE < MAX_BATCH
    paths = sorted(FILES, reverse=True)
    answer = await ask(team.client, paths)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert list(unpacked(answer)) == paths
    assert unpacked(answer) == FILES
    some = {path: FILES[path] for path in paths[5:8]}
    assert unpacked(await ask(team.client, list(some))) == some


async def test_an_answer_is_a_batch_for_another_volume(team: Volumes) -> None:
    await team.create()
    await team.batch(0, FILES)
    await team.create("copy")
    answer = await ask(team.client, list(FILES))
    assert (await team.client.put(batch_path(0, "copy"), content=answer.content)).status_code == 200
    assert unpacked(await ask(team.client, list(FILES), name="copy")) == FILES


async def test_files_of_several_pieces_and_of_no_bytes_are_whole(team: Volumes) -> None:
    files = {"large": b"x" * (CHUNK_BYTES + 1), "none": b"", "half": b"y" * (CHUNK_BYTES // 2), "rest": b"z" * 700_000}
    await team.create("weights", **files)
    assert unpacked(await ask(team.client, list(files))) == files
    assert unpacked(await ask(team.client, ["none"])) == {"none": b""}


async def test_a_version_has_its_own_files_alone_and_so_has_a_project(team: Volumes) -> None:
    made = await team.create(a=b"first", b=b"b")
    await team.update("weights", 1, a=b"second")
    await team.upload("weights/2/a", b"third")
    await team.upload("weights/7/a", b"of no version")
    for number, content in enumerate((b"first", b"second", b"third")):
        assert unpacked(await ask(team.client, ["a"], number, made["id"])) == {"a": content}
    assert refusal(await ask(team.client, ["a", "b"], 1)) == (
        404,
        "not_found",
        "There is no file 'b' in version 1 of the volume 'weights'.",
    )
    assert refusal(await ask(team.client, ["a"], 7))[:2] == (404, "not_found")
    assert refusal(await ask(team.client, ["a"], 0, "other"))[:2] == (404, "not_found")
    _, key = await team.shop.identity.create_key("elsewhere", "a key", Scope.ADMIN)
    assert refusal(await ask(team.shop.client(key), ["a"], 0, "weights"))[:2] == (404, "not_found")
    assert refusal(await ask(team.shop.client(key), ["a"], 0, made["id"]))[:2] == (404, "not_found")


@pytest.mark.parametrize(
    ("paths", "code", "says"),
    [
        ([], "malformed_body", "at least 1 entry"),
        ([""], "malformed_body", "at least 1 character"),
        (["x"] * (MAX_BATCH + 1), "malformed_body", "at most 500 entries"),
        (["a", "a"], "invalid_request", "path twice"),
        (["../0/a"], "invalid_request", "'../0/a'"),
        (["/a"], "invalid_request", "'/a'"),
        (["a\0"], "invalid_request", "control characters"),
        (["a", 1], "malformed_body", "paths"),
    ],
    ids=["none", "empty", "many", "twice", "above", "absolute", "zero", "number"],
)
async def test_a_request_that_is_wrong_is_refused(team: Volumes, paths: Any, code: str, says: str) -> None:
    await team.create(a=b"a")
    answer = await ask(team.client, paths)
    assert refusal(answer)[:2] == (400, code)
    assert says in refusal(answer)[2]


async def test_an_answer_has_a_bound(team: Volumes) -> None:
    half = LIMIT_BYTES // 2
    await team.create(a=b"a" * half, b=b"b" * half, c=b"c")
    assert len(unpacked(await ask(team.client, ["a", "b"]))) == 2
    code, _, says = refusal(await ask(team.client, ["a", "b", "c"]))
    assert code == 400
    assert "GET /v1/storage/weights/0/<path>" in says


async def test_a_file_whose_bytes_are_lost_is_named(team: Volumes) -> None:
    await team.create(a=b"a", b=b"b")
    (key,) = [key for key in team.shop.blobs() if (team.shop.folder / "blobs" / key).read_bytes() == b"b"]
    (team.shop.folder / "blobs" / key).unlink()
    assert refusal(await ask(team.client, ["a", "b"])) == (
        404,
        "artifact_missing",
        "The bytes of 'b' are not in the platform's storage.",
    )
    assert unpacked(await ask(team.client, ["a"])) == {"a": b"a"}


async def test_a_file_that_is_being_replaced_is_one_or_the_other(team: Volumes) -> None:
    await team.create(a=b"0")

    async def replace() -> None:
        for number in range(40):
            assert (await team.batch(0, {"a": b"%d" % number * 50})).status_code == 200

    replacing = asyncio.create_task(replace())
    seen = set()
    while not replacing.done():
        seen.add(unpacked(await ask(team.client, ["a"]))["a"])
    await replacing
    assert seen <= {b"0", *(b"%d" % number * 50 for number in range(40))}


async def test_who_may_read(team: Volumes) -> None:
    await team.create(a=b"a")
    for scope in (Scope.VIEWER, Scope.DEVELOPER):
        _, key = await team.shop.identity.create_key("default", scope, scope)
        assert unpacked(await ask(team.shop.client(key), ["a"])) == {"a": b"a"}
    replica = await team.shop.replica("replica-1")
    assert (await ask(replica.client, ["a"])).status_code == 403
    assert (await ask(team.shop.client(None), ["a"])).status_code == 401


async def test_a_hash_that_is_not_known_yet_is_null(team: Volumes, clock: Clock) -> None:
    await team.create()
    assert (await team.upload_in_parts("weights/0/a", b"one")).status_code == 200
    line, _, data = (await ask(team.client, ["a"])).content.partition(b"\n")
    assert json.loads(line) == {"files": [{"path": "a", "size": 3, "sha256": None}]}
    assert data == b"one"
    await team.shop.contents.hash_new(clock.now)
    assert json.loads((await ask(team.client, ["a"])).content.partition(b"\n")[0])["files"] == [claimed("a", b"one")]


async def test_the_shorter_path_is_the_same(team: Volumes) -> None:
    await team.create(a=b"a")
    path = batch_path(0).replace("/v1/deployments/", "/v1/")
    assert unpacked(await team.client.post(f"{path}/contents", json={"paths": ["a"]})) == {"a": b"a"}
    assert VOLUMES not in path
