"""Large files come in parts, and are seen as a whole or not at all."""

import asyncio
import hashlib
import random
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from files.shop import LIMIT_BYTES, Replica, Shop, output
from machineshop.blobs.base import UploadHeld
from machineshop.models import Claim, Scope
from machineshop.services.multipart import EXPIRY_SECONDS, LIFETIME_SECONDS
from machineshop.states import JobVerb

PARTS = [random.Random(number).randbytes(200_000 + number) for number in range(3)]
# What no database does in a way of its own.
ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Sender:
    """Somebody who sends one file in parts."""

    def __init__(self, client: httpx.AsyncClient, stranger: httpx.AsyncClient, name: str) -> None:
        self.client = client
        self.name = name
        self.upload_id = ""
        self.urls: list[str] = []
        self._stranger = stranger

    async def ask(self, parts_count: int = len(PARTS), **fields: Any) -> httpx.Response:
        body = {"filename": self.name, "parts_count": parts_count, **fields}
        return await self.client.post("/v1/storage/multipart/init", json=body)

    async def begin(self, parts_count: int = len(PARTS), **fields: Any) -> None:
        answer = await self.ask(parts_count, **fields)
        assert answer.status_code == 200, answer.text
        assert answer.json()["path"] == self.name
        self.upload_id = answer.json()["upload_id"]
        urls = answer.json()["part_upload_urls"]
        assert [(url["part_number"], url["method"]) for url in urls] == [(n + 1, "PUT") for n in range(parts_count)]
        self.urls = [url["url"] for url in urls]

    async def put(self, number: int, content: bytes) -> httpx.Response:
        return await self._stranger.put(self.urls[number - 1], content=content)

    async def send(self, number: int, content: bytes) -> dict[str, Any]:
        """Send a part; what `complete` wants to know of it."""
        answer = await self.put(number, content)
        assert answer.status_code == 200, answer.text
        assert answer.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
        return {"part_number": number, "etag": answer.headers["etag"].strip('"')}

    async def send_all(self) -> list[dict[str, Any]]:
        sent = await asyncio.gather(*(self.send(number, PARTS[number - 1]) for number in (2, 3, 1)))
        return sorted(sent, key=lambda part: int(part["part_number"]))

    async def complete(self, parts: list[dict[str, Any]], **fields: Any) -> httpx.Response:
        body = {"filename": self.name, "upload_id": self.upload_id, "parts": parts, **fields}
        return await self.client.post("/v1/storage/multipart/complete", json=body)

    async def abort(self, **fields: Any) -> httpx.Response:
        body = {"filename": self.name, "upload_id": self.upload_id, **fields}
        return await self.client.post("/v1/storage/multipart/abort", json=body)


@pytest.fixture
async def replica(shop: Shop) -> Replica:
    return await shop.replica("replica-1")


def by_user(shop: Shop, name: str = "big/file.bin") -> Sender:
    return Sender(shop.client(), shop.client(None), name)


def by_worker(shop: Shop, replica: Replica, claim: Claim, name: str = "big.bin") -> Sender:
    return Sender(replica.client, shop.client(None), output(claim, name))


def fence(claim: Claim) -> dict[str, Any]:
    return {"request_id": claim.job.id, "attempt_token": claim.token}


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


async def test_a_file_is_made_of_its_parts(shop: Shop) -> None:
    sender = by_user(shop)
    await sender.begin()
    parts = await sender.send_all()
    assert await shop.read(sender.name) is None

    answer = await sender.complete(parts)

    assert answer.status_code == 200, answer.text
    assert (answer.json()["path"], answer.json()["size"]) == (sender.name, sum(map(len, PARTS)))
    got = await sender.client.get(f"/v1/storage/{sender.name}", headers={"Range": "bytes=199999-200001"})
    assert got.content == b"".join(PARTS)[199_999:200_002]
    assert got.headers["etag"].endswith('-3"')
    assert await shop.read(sender.name) == b"".join(PARTS)
    assert shop.blobs() == await shop.rows()
    assert shop.uploads() == 1  # what is known of it: who asks again is to get the same answer
    assert (await sender.complete(parts)).json() == answer.json()
    assert await shop.read(sender.name) == b"".join(PARTS)


@ON_ONE_DATABASE
async def test_not_all_parts_need_be_used_and_the_etag_says_which_sending_counts(shop: Shop) -> None:
    sender = by_user(shop)
    await sender.begin(10)
    first, second = await sender.send(2, b"first"), await sender.send(2, b"second")
    last = await sender.send(7, b" and last")
    assert first != second
    answer = await sender.complete([{**first, "etag": f'"{first["etag"]}"'}, last])
    assert answer.status_code == 200, answer.text
    assert await shop.read(sender.name) == b"first and last"


@ON_ONE_DATABASE
async def test_what_cannot_be_completed_says_why_and_can_be_gone_on_with(shop: Shop) -> None:
    sender = by_user(shop)
    await sender.begin()
    parts = await sender.send_all()
    unsent = {"part_number": 3, "etag": hashlib.sha256(b"unsent").hexdigest()}
    for wrong in ([*parts[:2], unsent], [], parts[::-1], [parts[0], parts[0]], [{**parts[0], "part_number": 4}]):
        refused(await sender.complete(wrong), 400, "invalid_request")
    assert "Part 3 has not come" in (await sender.complete([*parts[:2], unsent])).json()["error"]["message"]
    refused(await sender.complete([{"part_number": 1, "etag": "../../x"}]), 400, "malformed_body")
    refused(await sender.complete(parts, filename="another.bin"), 404, "not_found")
    refused(await sender.complete(parts, upload_id="../../../etc/passwd"), 404, "not_found")
    _, key = await shop.identity.create_key("elsewhere", "stranger", Scope.DEVELOPER)
    stranger = Sender(shop.client(key), shop.client(None), sender.name)
    stranger.upload_id = sender.upload_id
    refused(await stranger.complete(parts), 404, "not_found")
    refused(await stranger.abort(), 404, "not_found")
    assert (await sender.complete(parts)).status_code == 200


@ON_ONE_DATABASE
async def test_two_that_complete_at_once_do_not_disturb_each_other(shop: Shop) -> None:
    sender = by_user(shop)
    await sender.begin()
    parts = await sender.send_all()
    answers = await asyncio.gather(*(sender.complete(parts) for _ in range(5)))
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert (await sender.complete(parts)).status_code == 200
    assert await shop.read(sender.name) == b"".join(PARTS)
    assert len(shop.blobs()) == 1


@ON_ONE_DATABASE
async def test_one_server_at_a_time_completes_an_upload(shop: Shop) -> None:
    sender = by_user(shop)
    await sender.begin()
    parts = await sender.send_all()
    project_id = (await shop.identity.create_key("default", "who", Scope.DEVELOPER))[0].project_id
    group = f"multipart/{project_id}"
    async with shop.storage.parts.hold(group, sender.upload_id):
        refused(await sender.complete(parts), 503, "unavailable")
        with pytest.raises(UploadHeld):
            async with shop.storage.parts.hold(group, sender.upload_id):
                pass
    assert (await sender.complete(parts)).status_code == 200


@ON_ONE_DATABASE
async def test_an_upload_that_is_given_up_leaves_nothing(shop: Shop) -> None:
    sender = by_user(shop)
    await sender.begin()
    parts = await sender.send_all()
    assert (await sender.abort()).status_code == 200
    assert shop.uploads() == 0
    refused(await sender.put(1, b"late"), 404, "not_found")
    refused(await sender.complete(parts), 404, "not_found")
    refused(await sender.abort(), 404, "not_found")


@ON_ONE_DATABASE
async def test_limits(shop: Shop) -> None:
    sender = by_user(shop)
    refused(await sender.ask(0), 400, "invalid_request")
    refused(await sender.ask(10_001), 400, "invalid_request")
    await sender.begin(10_000)
    refused(await sender.put(1, b"x" * (LIMIT_BYTES + 1)), 413, "payload_too_large")
    assert shop.uploads() == 1


@ON_ONE_DATABASE
async def test_a_parts_url_is_for_that_part_and_for_a_while(shop: Shop) -> None:
    sender = by_user(shop)
    await sender.begin()
    first, second = sender.urls[:2]
    sender.urls[0] = first.replace("/1?", "/2?")
    refused(await sender.put(1, b"x"), 403, "signature_invalid")
    sender.urls[0] = first.partition("?")[0]
    refused(await sender.put(1, b"x"), 403, "signature_invalid")
    shop.clock.now += LIFETIME_SECONDS + 1
    refused(await sender.put(2, b"x"), 403, "signature_invalid")
    assert second == sender.urls[1]


async def test_an_output_is_seen_with_its_jobs_result(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    sender = by_worker(shop, replica, claim)
    await sender.begin(**fence(claim))
    assert (await sender.complete(await sender.send_all())).status_code == 200
    assert await shop.read(sender.name) is None
    await replica.finish(claim)
    assert await shop.read(sender.name) == b"".join(PARTS)
    assert shop.blobs() == await shop.rows()


async def test_what_a_stale_attempt_sends_is_never_seen(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    senders = [by_worker(shop, replica, claim, name) for name in ("sending", "completing", "done", "idle")]
    for sender in senders:
        await sender.begin(**fence(claim))
    sending, completing, done, idle = senders
    parts = await completing.send_all()
    assert (await done.complete(await done.send_all())).status_code == 200
    await idle.send_all()
    await replica.say(JobVerb.RELEASE, claim)

    refused(await sending.put(1, b"late"), 409, "stale_attempt")
    refused(await completing.complete(parts), 409, "stale_attempt")

    again = await replica.claim()
    assert again.job.id == claim.job.id
    refused(await completing.complete(parts), 409, "stale_attempt")
    await replica.finish(again)
    assert [await shop.read(sender.name) for sender in senders] == [None] * 4
    assert await shop.clean() > 0
    assert (await shop.rows(), shop.blobs()) == (set(), set())
    assert shop.uploads() == 1  # that `done` was completed; it goes in time


@ON_ONE_DATABASE
async def test_a_project_that_is_gone_takes_no_part_and_leaves_none(shop: Shop) -> None:
    sending, idle = by_user(shop, "sending"), by_user(shop, "idle")
    for sender in (sending, idle):
        await sender.begin()
        await sender.send(1, PARTS[0])
    gone = text("UPDATE projects SET deleted_at = 1 WHERE id = :id")
    await shop.database.write(lambda conn: conn.execute(gone, {"id": shop.deployment.project_id}))
    refused(await sending.put(2, PARTS[1]), 404, "not_found")
    assert await shop.clean() > 0
    assert shop.uploads() == 0


@ON_ONE_DATABASE
async def test_a_worker_key_sends_files_of_its_replicas_jobs_alone(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    other = await shop.replica("replica-2")
    sender = by_worker(shop, replica, claim)
    await sender.begin()  # as a worker does that knows no tokens: the name says whose it is
    parts = await sender.send_all()
    thief = Sender(other.client, shop.client(None), sender.name)
    thief.upload_id = sender.upload_id
    refused(await thief.ask(), 409, "stale_attempt")
    refused(await thief.complete(parts), 409, "stale_attempt")
    refused(await Sender(replica.client, shop.client(None), "config.json").ask(), 403, "not_a_jobs_file")
    assert (await sender.complete(parts)).status_code == 200
    await replica.finish(claim)
    assert await shop.read(sender.name) == b"".join(PARTS)


@ON_ONE_DATABASE
async def test_what_nobody_goes_on_with_is_removed_in_the_end(shop: Shop) -> None:
    sender = by_user(shop)
    await sender.begin()
    await sender.send(1, b"x")
    assert await shop.clean() == 0
    assert shop.uploads() == 2
    shop.clock.now += EXPIRY_SECONDS + 60
    assert await shop.clean() == 2
    assert shop.uploads() == 0


@ON_ONE_DATABASE
async def test_a_key_is_needed_for_all_but_the_parts(shop: Shop) -> None:
    stranger = Sender(shop.client(None), shop.client(None), "a.bin")
    refused(await stranger.ask(), 401, "not_authenticated")
    refused(await stranger.complete([]), 401, "not_authenticated")
    refused(await stranger.abort(), 401, "not_authenticated")
