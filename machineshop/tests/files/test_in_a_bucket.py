"""Files in an object storage: large parts go there and readers are sent there, and all else is as on a disk."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from factory import Clock
from files.shop import Replica, Shop, open_shop, output
from files.test_multipart import Sender, fence, refused
from machineshop.blobs.bucket_storage import BucketStorage
from machineshop.config import StorageUrl
from machineshop.models import Deployment
from machineshop.services.identity import IdentityService
from machineshop.services.leftovers import DOUBT_SECONDS
from machineshop.services.multipart import EXPIRY_SECONDS
from machineshop.services.queue import QueueService
from machineshop.states import JobVerb
from machineshop.store.database import Database
from object_storage import ObjectStorage
from volumes.conftest import VOLUMES, batch_path, batched

MIB = 1024 * 1024
PARTS = [random.Random(number).randbytes(size) for number, size in enumerate((5 * MIB, 5 * MIB + 1, 17))]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def shop(
    tmp_path: Path,
    clock: Clock,
    database: Database,
    identity: IdentityService,
    deployment: Deployment,
    queue: QueueService,
    bucket: StorageUrl,
) -> AsyncIterator[Shop]:
    storage = BucketStorage(bucket)
    async with open_shop(tmp_path, clock, database, identity, deployment, queue, storage) as shop:
        yield shop


@pytest.fixture
async def replica(shop: Shop) -> Replica:
    return await shop.replica("replica-1")


@pytest.fixture
def sender(shop: Shop) -> Sender:
    return Sender(shop.client(), shop.client(None), "big/file.bin")


async def send_all(sender: Sender) -> list[dict[str, object]]:
    answers = [await sender.put(number, content) for number, content in enumerate(PARTS, 1)]
    assert {answer.status_code for answer in answers} == {200}
    return [{"part_number": n, "etag": answer.headers["etag"].strip('"')} for n, answer in enumerate(answers, 1)]


async def read(shop: Shop, name: str, **headers: str) -> httpx.Response:
    """As a client does that follows redirects."""
    client = shop.client()
    client.follow_redirects = True
    return await client.get(f"/v1/storage/{name}", headers=headers)


async def upload(shop: Shop, name: str, content: bytes) -> None:
    asked = await shop.client().post("/v1/storage/upload-request", json={"filename": name})
    answer = await shop.client(None).put(asked.json()["upload_url"]["url"], content=content)
    assert answer.status_code == 200, answer.text


async def test_a_file_comes_in_by_us_and_is_read_there(shop: Shop, objects: ObjectStorage, bucket: StorageUrl) -> None:
    await upload(shop, "a folder/page.html", b"<script>")
    sent_on = await shop.client().get("/v1/storage/a folder/page.html")
    assert sent_on.status_code == 307
    assert sent_on.headers["location"].startswith(objects.endpoint)
    assert "authorization" not in sent_on.headers["location"].lower()
    got = await read(shop, "a folder/page.html")
    assert got.content == b"<script>"
    # What somebody uploaded must not run as a page of the storage's either.
    assert got.headers["content-disposition"].startswith("attachment")
    assert (await read(shop, "a folder/page.html", range="bytes=1-3")).content == b"scr"
    assert (await shop.client().head("/v1/storage/a folder/page.html")).headers["content-length"] == "8"
    assert not list(shop.folder.glob("uploads/**/*"))
    assert len(objects.keys(bucket)) == 1


async def test_one_that_is_replaced_stays_for_those_who_were_just_sent_to_it(
    shop: Shop, objects: ObjectStorage, bucket: StorageUrl
) -> None:
    await upload(shop, "a.txt", b"old")
    url = (await shop.client().get("/v1/storage/a.txt")).headers["location"]
    await upload(shop, "a.txt", b"new")
    anybody = shop.client(None)
    assert (await anybody.get(url)).content == b"old"
    assert (await read(shop, "a.txt")).content == b"new"
    shop.clock.now += DOUBT_SECONDS + 1
    assert await shop.clean() == 1
    assert (await anybody.get(url)).status_code in {403, 404}
    assert (await shop.client().delete("/v1/storage/a.txt")).status_code == 200
    assert objects.keys(bucket) == set()


async def test_parts_go_there(shop: Shop, sender: Sender, objects: ObjectStorage, bucket: StorageUrl) -> None:
    await sender.begin()
    assert {urlsplit(url).netloc for url in sender.urls} == {urlsplit(objects.endpoint).netloc}
    parts = await send_all(sender)
    assert (await read(shop, sender.name)).status_code == 404

    answer = await sender.complete(parts)

    assert answer.status_code == 200, answer.text
    assert answer.json()["size"] == sum(map(len, PARTS))
    assert (await read(shop, sender.name)).content == b"".join(PARTS)
    assert (await sender.complete(parts)).json() == answer.json()
    assert objects.unfinished(bucket) == 0
    shop.clock.now += EXPIRY_SECONDS + 60
    await shop.clean()
    assert (await read(shop, sender.name)).content == b"".join(PARTS)


async def test_what_cannot_be_completed_says_why(
    shop: Shop, sender: Sender, objects: ObjectStorage, bucket: StorageUrl
) -> None:
    await sender.begin()
    small = (await sender.put(1, b"too small")).headers["etag"].strip('"')
    last = (await sender.put(2, b"the last")).headers["etag"].strip('"')
    tail = {"part_number": 2, "etag": last}
    wrong = await sender.complete([{"part_number": 1, "etag": small}, tail])
    refused(wrong, 400, "invalid_request")
    assert "Part 1 has 9 bytes" in wrong.json()["error"]["message"]
    refused(await sender.complete([{"part_number": 3, "etag": last}]), 400, "invalid_request")
    assert (await sender.abort()).status_code == 200
    refused(await sender.complete([tail]), 404, "not_found")
    assert (objects.keys(bucket), objects.unfinished(bucket)) == (set(), 0)
    assert not (await sender.put(2, b"late")).is_success


async def test_an_output_is_seen_with_its_jobs_result_and_never_that_of_a_stale_attempt(
    shop: Shop, replica: Replica, objects: ObjectStorage, bucket: StorageUrl
) -> None:
    claim = await replica.take_new()
    stale, unsent = (Sender(replica.client, shop.client(None), output(claim, name)) for name in ("big.bin", "idle"))
    await stale.begin(**fence(claim))
    await unsent.begin(**fence(claim))
    parts = await send_all(stale)
    await replica.say(JobVerb.RELEASE, claim)
    refused(await stale.complete(parts), 409, "stale_attempt")

    again = await replica.claim()
    good = Sender(replica.client, shop.client(None), output(again, "big.bin"))
    await good.begin(**fence(again))
    assert (await good.complete(await send_all(good))).status_code == 200
    assert (await read(shop, good.name)).status_code == 404
    await replica.finish(again)
    await shop.clean()
    assert (await read(shop, good.name)).content == b"".join(PARTS)
    assert objects.unfinished(bucket) == 0  # nor what was idle
    assert len([key for key in objects.keys(bucket) if key.startswith("files/")]) == 1


async def test_without_redirects_the_bytes_come_from_us(shop: Shop, bucket: StorageUrl) -> None:
    await upload(shop, "a.txt", b"bytes")
    shop.storage.blobs.signs = False
    answer = await shop.client().get("/v1/storage/a.txt", headers={"range": "bytes=2-"})
    assert (answer.status_code, answer.content) == (206, b"tes")


async def test_many_files_of_a_volume_come_by_one_request(
    shop: Shop, objects: ObjectStorage, bucket: StorageUrl
) -> None:
    client, files = shop.client(), {f"{number % 7}/{number}": b"%d" % number for number in range(100)}
    made = {"name": "weights", "type": "readOnly", "content": {"type": "files", "source_prefix": "weights/0"}}
    assert (await client.post(VOLUMES, json=made)).status_code == 200
    for _ in range(2):
        assert (await client.put(batch_path(0), content=batched(files))).status_code == 200
    assert (await read(shop, "weights/0/3/94")).content == b"94"
    asked = {"paths": list(files)}
    answer = await client.post(f"{batch_path(0)}/contents", json=asked)
    assert answer.content.partition(b"\n")[2] == b"".join(files.values())
    shop.clock.now += DOUBT_SECONDS + 1
    await shop.clean()
    assert len(objects.keys(bucket)) == 100, "those of the first time go when nobody reads them any more"
    broken = shop.client()
    objects.stop()
    try:
        refused(await broken.put(batch_path(1), content=batched({"a": b"a"})), 503, "storage_unavailable")
        refused(await broken.post(f"{batch_path(0)}/contents", json=asked), 503, "storage_unavailable")
    finally:
        objects.restart()
    assert (await client.put(batch_path(1), content=batched({"a": b"a"}))).status_code == 200
    assert (await client.delete(f"{VOLUMES}/weights")).status_code == 200
    await shop.remove_gone()
    assert objects.keys(bucket) == set()


async def test_an_outage_is_said_and_heals_by_itself(shop: Shop, objects: ObjectStorage) -> None:
    asked = await shop.client().post("/v1/storage/upload-request", json={"filename": "a.txt"})
    url = asked.json()["upload_url"]["url"]
    objects.stop()
    try:
        answer = await shop.client(None).put(url, content=b"bytes")
        refused(answer, 503, "storage_unavailable")
        assert answer.headers["retry-after"] == "5"
        begun = await shop.client().post("/v1/storage/multipart/init", json={"filename": "b", "parts_count": 2})
        refused(begun, 503, "storage_unavailable")
    finally:
        objects.restart()
    assert (await shop.client(None).put(url, content=b"bytes")).status_code == 200
    assert (await read(shop, "a.txt")).content == b"bytes"
