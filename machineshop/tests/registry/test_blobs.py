"""Blobs in every way that clients push and pull them."""

import asyncio
import hashlib
import itertools
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from factory import Clock, eventually
from machineshop.services.uploads import EXPIRY_SECONDS
from pusher import Pusher, code_of, digest_of
from storage_server import StorageServer, server_process

MIB = 1024 * 1024
CONTENT = random.Random(7).randbytes(3 * MIB + 5)
DIGEST = digest_of(CONTENT)
BLOB = f"/v2/team/app/blobs/{DIGEST}"


async def test_a_blob_in_two_steps(pusher: Pusher, server: StorageServer) -> None:
    location = await pusher.start("team/app")
    answer = await pusher.client.put(location, params={"digest": DIGEST}, content=CONTENT)
    assert (answer.status_code, answer.headers["location"]) == (201, BLOB)
    assert answer.headers["docker-content-digest"] == DIGEST

    head = await pusher.client.head(BLOB)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(CONTENT)))
    got = await pusher.client.get(BLOB)
    assert got.content == CONTENT
    assert got.headers["docker-content-digest"] == DIGEST
    assert server.left_on_disk("uploads") == []


async def test_a_blob_in_one_request(client: httpx.AsyncClient, server: StorageServer) -> None:
    answer = await client.post("/v2/team/app/blobs/uploads/", params={"digest": DIGEST}, content=CONTENT)
    assert (answer.status_code, answer.headers["location"]) == (201, BLOB)
    assert (await client.get(BLOB)).content == CONTENT
    assert server.left_on_disk("uploads") == []


async def test_a_blob_in_chunks(pusher: Pusher) -> None:
    location = await pusher.start("team/app")
    cuts = [0, 1, MIB, 2 * MIB + 17, len(CONTENT)]
    for start, end in itertools.pairwise(cuts[:-1]):
        headers = {"Content-Range": f"{start}-{end - 1}"}
        answer = await pusher.client.patch(location, content=CONTENT[start:end], headers=headers)
        assert (answer.status_code, answer.headers["range"]) == (202, f"0-{end - 1}")
        location = answer.headers["location"]
    status = await pusher.client.get(location)
    assert (status.status_code, status.headers["range"]) == (204, f"0-{cuts[-2] - 1}")
    last = {"Content-Range": f"{cuts[-2]}-{cuts[-1] - 1}"}
    answer = await pusher.client.put(location, params={"digest": DIGEST}, content=CONTENT[cuts[-2] :], headers=last)
    assert answer.status_code == 201
    assert (await pusher.client.get(BLOB)).content == CONTENT


async def test_a_blob_as_a_stream_without_length(pusher: Pusher) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for at in range(0, len(CONTENT), 100_000):
            yield CONTENT[at : at + 100_000]

    location = await pusher.start("team/app")
    answer = await pusher.client.patch(location, content=stream())
    assert (answer.status_code, answer.headers["range"]) == (202, f"0-{len(CONTENT) - 1}")
    answer = await pusher.client.put(answer.headers["location"], params={"digest": DIGEST})
    assert answer.status_code == 201
    assert (await pusher.client.get(BLOB)).content == CONTENT


@pytest.mark.parametrize(
    "header", ["5-9", "0-x", "bytes", "-5", "", "0-5, 7-9", "bytes=0-", "1e3-2e3", "0-" + "9" * 40]
)
async def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(pusher: Pusher, header: str) -> None:
    location = await pusher.start("team/app")
    await pusher.client.patch(location, content=b"abc")
    answer = await pusher.client.patch(location, content=b"defgh", headers={"Content-Range": header})
    assert code_of(answer) == (416, "BLOB_UPLOAD_INVALID")
    assert (answer.headers["range"], answer.headers["location"]) == ("0-2", location)
    put = await pusher.client.put(location, params={"digest": digest_of(b"abcdefgh")}, content=b"defgh")
    assert put.status_code == 201


async def test_a_chunk_of_another_length_than_its_range_is_refused(pusher: Pusher) -> None:
    location = await pusher.start("team/app")
    answer = await pusher.client.patch(location, content=b"abc", headers={"Content-Range": "0-3"})
    assert code_of(answer) == (400, "SIZE_INVALID")


async def test_bytes_with_another_digest_are_not_kept(pusher: Pusher, server: StorageServer) -> None:
    location = await pusher.start("team/app")
    answer = await pusher.client.put(location, params={"digest": DIGEST}, content=CONTENT[:-1])
    assert code_of(answer) == (400, "DIGEST_INVALID")
    assert (await pusher.client.head(BLOB)).status_code == 404
    assert code_of(await pusher.client.get(location)) == (404, "BLOB_UPLOAD_UNKNOWN")
    whole = await pusher.client.post("/v2/team/app/blobs/uploads/", params={"digest": DIGEST}, content=b"x")
    assert code_of(whole) == (400, "DIGEST_INVALID")
    assert server.left_on_disk("uploads") == server.left_on_disk("blobs") == []


@pytest.mark.parametrize("digest", [None, "", "sha256:abc", "sha512:" + "0" * 127, "sha256:" + "0" * 62 + "/."])
async def test_an_upload_without_a_proper_digest_goes_on(pusher: Pusher, digest: str | None) -> None:
    location = await pusher.start("team/app")
    answer = await pusher.client.put(location, params={"digest": digest} if digest is not None else {}, content=b"x")
    assert code_of(answer) == (400, "DIGEST_INVALID")
    assert (await pusher.client.get(location)).headers["range"] == "0-0"


async def test_a_cancelled_upload_is_gone(pusher: Pusher, server: StorageServer) -> None:
    location = await pusher.start("team/app")
    await pusher.client.patch(location, content=b"abc")
    assert (await pusher.client.delete(location)).status_code == 204
    for answer in (
        await pusher.client.get(location),
        await pusher.client.patch(location, content=b"x"),
        await pusher.client.put(location, params={"digest": DIGEST}, content=CONTENT),
        await pusher.client.delete(location),
    ):
        assert code_of(answer) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert server.left_on_disk("uploads") == []


async def test_uploads_that_nobody_goes_on_with_expire(pusher: Pusher, server: StorageServer, clock: Clock) -> None:
    location = await pusher.start("team/app")
    await pusher.client.patch(location, content=b"abc")
    assert await server.registry.clean(clock.now + EXPIRY_SECONDS - 60) == 0
    assert await server.registry.clean(clock.now + EXPIRY_SECONDS + 60) == 1
    assert code_of(await pusher.client.get(location)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert server.left_on_disk("uploads") == []


async def test_a_blob_is_mounted_from_another_repository(pusher: Pusher) -> None:
    await pusher.blob("team/app", CONTENT)
    params = {"mount": DIGEST, "from": "team/app"}
    answer = await pusher.client.post("/v2/team/other/blobs/uploads/", params=params)
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v2/team/other/blobs/{DIGEST}")
    assert (await pusher.client.get(f"/v2/team/other/blobs/{DIGEST}")).content == CONTENT
    anywhere = await pusher.client.post("/v2/team/third/blobs/uploads/", params={"mount": DIGEST})
    assert anywhere.status_code == 201
    unknown = await pusher.client.post(
        "/v2/team/fourth/blobs/uploads/", params={"mount": digest_of(b"nothing"), "from": "team/app"}
    )
    assert unknown.status_code == 202
    assert "uploads" in unknown.headers["location"]


async def test_a_deleted_blob_stays_in_other_repositories(pusher: Pusher) -> None:
    await pusher.blob("team/app", CONTENT)
    await pusher.client.post("/v2/team/other/blobs/uploads/", params={"mount": DIGEST, "from": "team/app"})
    assert (await pusher.client.delete(BLOB)).status_code == 202
    assert code_of(await pusher.client.get(BLOB)) == (404, "BLOB_UNKNOWN")
    assert code_of(await pusher.client.delete(BLOB)) == (404, "BLOB_UNKNOWN")
    assert (await pusher.client.get(f"/v2/team/other/blobs/{DIGEST}")).content == CONTENT


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=5-", 5, None), ("bytes=-7", -7, None), ("bytes=1048570-2097160", 1048570, 2097161)],
)
async def test_a_range_of_a_blob(pusher: Pusher, header: str, start: int, end: int | None) -> None:
    await pusher.blob("team/app", CONTENT)
    answer = await pusher.client.get(BLOB, headers={"Range": header})
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:end]
    first = start % len(CONTENT)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(CONTENT)}"


async def test_a_range_beyond_the_blob(pusher: Pusher) -> None:
    await pusher.blob("team/app", b"abc")
    answer = await pusher.client.get(f"/v2/team/app/blobs/{digest_of(b'abc')}", headers={"Range": "bytes=3-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == "bytes */3"


async def test_many_push_one_blob_at_once(pusher: Pusher, server: StorageServer) -> None:
    await asyncio.gather(*(pusher.blob(f"team/app-{index % 3}", CONTENT) for index in range(9)))
    for index in range(3):
        assert (await pusher.client.get(f"/v2/team/app-{index}/blobs/{DIGEST}")).content == CONTENT
    assert len(server.left_on_disk("blobs")) == 1
    assert server.left_on_disk("uploads") == []


async def test_a_lost_blob_is_asked_for_again(pusher: Pusher, server: StorageServer) -> None:
    await pusher.blob("team/app", CONTENT)
    for path in server.left_on_disk("blobs"):
        path.unlink()
    assert (await pusher.client.head(BLOB)).status_code == 404
    assert code_of(await pusher.client.get(BLOB)) == (404, "BLOB_UNKNOWN")
    await pusher.blob("team/app", CONTENT)
    assert (await pusher.client.get(BLOB)).content == CONTENT


def broken_request(server: StorageServer, client: httpx.AsyncClient, method: str, path: str, body: bytes) -> None:
    """Announce twice the body and hang up after it."""
    host, _, port = server.host.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"{method} {path} HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: {2 * len(body)}\r\n"
        connection.sendall(f"{head}Authorization: {client.headers['authorization']}\r\n\r\n".encode() + body)


async def test_a_broken_connection_leaves_an_upload_that_can_be_gone_on_with(
    pusher: Pusher, server: StorageServer
) -> None:
    location, half = await pusher.start("team/app"), len(CONTENT) // 2
    await asyncio.to_thread(broken_request, server, pusher.client, "PATCH", location, CONTENT[:half])
    upload = server.left_on_disk("uploads")[0]
    await eventually(lambda: upload.stat().st_size == half)

    async def answered() -> httpx.Response:
        while (answer := await pusher.client.patch(location, content=CONTENT[half:])).status_code == 409:
            await asyncio.sleep(0.005)
        return answer

    async with asyncio.timeout(60):
        assert (await answered()).status_code == 202
    assert (await pusher.client.put(location, params={"digest": DIGEST})).status_code == 201


async def test_a_broken_push_in_one_request_leaves_nothing(pusher: Pusher, server: StorageServer) -> None:
    path = f"/v2/team/app/blobs/uploads/?digest={DIGEST}"
    await asyncio.to_thread(broken_request, server, pusher.client, "POST", path, CONTENT[:MIB])
    await eventually(lambda: server.data_directory.joinpath("uploads").exists())
    await eventually(lambda: server.left_on_disk("uploads") == [])
    assert server.left_on_disk("blobs") == []


async def test_only_one_request_at_a_time_writes_to_an_upload(pusher: Pusher) -> None:
    location, go_on, sent = await pusher.start("team/app"), asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"abc"
        sent.set()
        await go_on.wait()
        yield b"def"

    first = asyncio.create_task(pusher.client.patch(location, content=slow()))
    await sent.wait()
    async with asyncio.timeout(60):
        while (answer := await pusher.client.delete(location)).status_code != 409:
            pytest.fail(f"an upload in use was cancelled: {answer.status_code}")
        assert code_of(await pusher.client.patch(location, content=b"xyz")) == (409, "BLOB_UPLOAD_INVALID")
    go_on.set()
    assert (await first).headers["range"] == "0-5"


async def test_a_push_survives_a_kill_of_the_server(tmp_path: Path) -> None:
    data, half = tmp_path / "data", len(CONTENT) // 2
    async with server_process(data) as server, server.client as client:
        kept = await Pusher(client).blob("team/kept", b"acknowledged")
        location = await Pusher(client).start("team/app")
        assert (await client.patch(location, content=CONTENT[:half])).status_code == 202
        await server.kill()
    async with server_process(data) as server, server.client as client:
        assert (await client.get(f"/v2/team/kept/blobs/{kept}")).content == b"acknowledged"
        status = await client.get(location)
        assert (status.status_code, status.headers["range"]) == (204, f"0-{half - 1}")
        answer = await client.put(location, params={"digest": DIGEST}, content=CONTENT[half:])
        assert answer.status_code == 201
        assert (await client.get(BLOB)).content == CONTENT


async def test_a_large_blob_takes_little_memory(tmp_path: Path) -> None:
    piece, pieces = random.Random(1).randbytes(MIB), 200
    digest = digest_of(piece * pieces)

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield piece

    async with server_process(tmp_path / "data") as server, server.client as client:
        location = await Pusher(client).start("team/app")
        before = server.peak_memory_bytes()
        answer = await client.put(location, params={"digest": digest}, content=stream())
        assert answer.status_code == 201, answer.text
        size = 0
        async with client.stream("GET", f"/v2/team/app/blobs/{digest}") as download:
            async for chunk in download.aiter_raw():
                size += len(chunk)
        assert size == pieces * MIB
        assert server.peak_memory_bytes() - before < 50 * MIB


async def test_a_blob_by_its_sha512(pusher: Pusher) -> None:
    digest = f"sha512:{hashlib.sha512(CONTENT).hexdigest()}"
    location = await pusher.start("team/app")
    assert (await pusher.client.patch(location, content=CONTENT[:MIB])).status_code == 202
    answer = await pusher.client.put(location, params={"digest": digest}, content=CONTENT[MIB:])
    assert (answer.status_code, answer.headers["docker-content-digest"]) == (201, digest)
    assert (await pusher.client.get(f"/v2/team/app/blobs/{digest}")).content == CONTENT
    once = await pusher.client.post("/v2/team/app/blobs/uploads/", params={"digest": digest}, content=CONTENT + b"!")
    assert code_of(once) == (400, "DIGEST_INVALID")
