"""The registry in an object storage: what is pushed streams there, and who pulls is sent there."""

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from factory import Clock
from machineshop.blobs.bucket_storage import BucketStorage
from machineshop.config import StorageUrl
from machineshop.services.garbage import GarbageCollector
from object_storage import ObjectStorage
from storage_server import StorageServer, storage_server

CONTENT = random.Random(5).randbytes(17 * 1024 * 1024 + 5)
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
BLOB = f"/v2/team/model/blobs/{DIGEST}"
UPLOADS = "/v2/team/model/blobs/uploads/"


@pytest.fixture
async def server(tmp_path: Path, clock: Clock, bucket: StorageUrl) -> AsyncIterator[StorageServer]:
    async with storage_server(tmp_path, clock, storage=BucketStorage(bucket)) as server:
        yield server


@pytest.fixture
async def client(server: StorageServer) -> AsyncIterator[httpx.AsyncClient]:
    async with server.client(await server.key("team")) as client:
        yield client


async def begin(client: httpx.AsyncClient) -> str:
    begun = await client.post(UPLOADS)
    assert begun.status_code == 202, begun.text
    location: str = begun.headers["location"]
    return location


async def test_what_is_pushed_in_chunks_is_pulled_from_the_storage(
    client: httpx.AsyncClient, objects: ObjectStorage, bucket: StorageUrl
) -> None:
    location = await begin(client)
    for start, end in ((0, 9_000_000), (9_000_000, 9_000_017), (9_000_017, len(CONTENT))):
        headers = {"content-range": f"{start}-{end - 1}"}
        answer = await client.patch(location, content=CONTENT[start:end], headers=headers)
        assert (answer.status_code, answer.headers["range"]) == (202, f"0-{end - 1}"), answer.text
    assert (await client.head(BLOB)).status_code == 404
    assert (await client.put(location, params={"digest": DIGEST})).status_code == 201
    assert (await client.head(BLOB)).headers["content-length"] == str(len(CONTENT))

    sent_on = await client.get(BLOB)
    assert (sent_on.status_code, sent_on.headers["docker-content-digest"]) == (307, DIGEST)
    assert sent_on.headers["location"].startswith(objects.endpoint)
    got = await client.get(BLOB, follow_redirects=True)
    assert got.content == CONTENT
    part = await client.get(BLOB, headers={"range": "bytes=5-16"}, follow_redirects=True)
    assert (part.status_code, part.content) == (206, CONTENT[5:17])
    assert len(objects.keys(bucket)) == 1
    assert objects.unfinished(bucket) == 0


async def test_wrong_digests_and_half_pushes_leave_nothing_to_be_seen(
    client: httpx.AsyncClient, objects: ObjectStorage, bucket: StorageUrl
) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield CONTENT[: len(CONTENT) // 2]
        raise ConnectionError

    wrong = await client.post(UPLOADS, params={"digest": DIGEST}, content=CONTENT[:-1])
    assert (wrong.status_code, wrong.json()["errors"][0]["code"]) == (400, "DIGEST_INVALID")
    with pytest.raises(ConnectionError):
        await client.post(UPLOADS, params={"digest": DIGEST}, content=half())
    assert (await client.head(BLOB)).status_code == 404
    location = await begin(client)
    assert (await client.patch(location, content=CONTENT[:-1])).status_code == 202
    assert (await client.delete(location)).status_code == 204
    assert not [key for key in objects.keys(bucket) if key.startswith("registry/")]
    assert (await client.post(UPLOADS, params={"digest": DIGEST}, content=CONTENT)).status_code == 201


async def test_a_push_goes_on_after_a_restart(tmp_path: Path, clock: Clock, bucket: StorageUrl) -> None:
    async with storage_server(tmp_path, clock, storage=BucketStorage(bucket)) as server:
        key = await server.key("team")
        async with server.client(key) as client:
            location = await begin(client)
            assert (await client.patch(location, content=CONTENT[:12_000_000])).status_code == 202
    async with storage_server(tmp_path, clock, storage=BucketStorage(bucket)) as server, server.client(key) as client:
        assert (await client.get(location)).headers["range"] == "0-11999999"
        ended = await client.put(location, params={"digest": DIGEST}, content=CONTENT[12_000_000:])
        assert ended.status_code == 201, ended.text
        assert (await client.get(BLOB, follow_redirects=True)).content == CONTENT


async def test_what_is_pushed_twice_is_kept_once_and_garbage_goes(
    server: StorageServer, client: httpx.AsyncClient, objects: ObjectStorage, bucket: StorageUrl
) -> None:
    for name in ("one", "two"):
        pushed = await client.post(f"/v2/team/{name}/blobs/uploads/", params={"digest": DIGEST}, content=CONTENT)
        assert pushed.status_code == 201
    assert len(objects.keys(bucket)) == 1
    collected = await GarbageCollector(server.database, server.storage.blobs).collect_all(0)
    assert (collected.blobs, collected.files) == (2, 1)
    assert objects.keys(bucket) == set()


async def test_an_outage_is_said_and_a_push_goes_on(client: httpx.AsyncClient, objects: ObjectStorage) -> None:
    location = await begin(client)
    objects.stop()
    try:
        for answer in (await client.patch(location, content=CONTENT), await client.post(UPLOADS)):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    finally:
        objects.restart()
    assert (await client.post(UPLOADS, params={"digest": DIGEST}, content=CONTENT)).status_code == 201
