"""Files go in by signed URLs and come out by their names."""

import asyncio
import hashlib
import random
import resource
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from factory import Clock, eventually
from machineshop.models import Scope
from machineshop.services.file_names import RESERVED_NAMES
from machineshop.services.files import URL_LIFETIME_SECONDS
from machineshop.services.leftovers import LEFTOVER_SECONDS
from storage_server import StorageServer, server_process

MIB = 1024 * 1024
LIMIT_BYTES = 8 * MIB
CONTENT = random.Random(3).randbytes(2 * MIB + 3)
ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


async def upload_url(client: httpx.AsyncClient, name: str) -> str:
    answer = await client.post("/v1/storage/upload-request", json={"filename": name})
    assert answer.status_code == 200, answer.text
    assert answer.json()["path"] == name
    assert answer.json()["upload_url"]["method"] == "PUT"
    url: str = answer.json()["upload_url"]["url"]
    return url


async def put(client: httpx.AsyncClient, name: str, content: bytes) -> None:
    url = await upload_url(client, name)
    async with httpx.AsyncClient(verify=False) as anybody:
        answer = await anybody.put(url, content=content)
    assert answer.status_code == 200, answer.text


def path_of(name: str) -> str:
    return f"/v1/storage/{quote(name)}"


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        "deep/er/a.json",
        "two words?.png",
        "100%/#1.bin",
        "für alle/ø.txt",
        "a" * 512,
        "...",
        "signed/x",
        "3.04\u202fPM 👩‍👩‍👧.png",
    ],
)
async def test_a_file_goes_in_and_comes_out(client: httpx.AsyncClient, stranger: httpx.AsyncClient, name: str) -> None:
    answer = await stranger.put(await upload_url(client, name), content=CONTENT)
    assert (answer.status_code, answer.headers["etag"]) == (200, ETAG)
    for prefix in ("/v1/storage/", "/v1/deployments/storage/"):
        got = await client.get(prefix + quote(name))
        assert (got.status_code, got.content, got.headers["etag"]) == (200, CONTENT, ETAG)
        head = await client.head(prefix + quote(name))
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(CONTENT)))


async def test_an_empty_file_is_a_file(client: httpx.AsyncClient) -> None:
    await put(client, "empty", b"")
    assert (await client.get(path_of("empty"))).content == b""


async def test_a_browser_saves_a_file_and_does_not_run_it(client: httpx.AsyncClient) -> None:
    await put(client, "pages/ü.html", b"<script>")
    headers = (await client.get(path_of("pages/ü.html"))).headers
    assert headers["content-type"] == "text/html"
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%BC.html"
    assert headers["x-content-type-options"] == "nosniff"
    for name, expected in {
        "plain": "application/octet-stream",
        "a.tar.gz": "application/gzip",
        "a.json": "application/json",
    }.items():
        await put(client, name, b"x")
        assert (await client.get(path_of(name))).headers["content-type"] == expected


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=1048570-1048590", 1048570, 1048591), ("bytes=-9", -9, None)],
)
async def test_a_range_of_a_file(client: httpx.AsyncClient, header: str, start: int, end: int | None) -> None:
    await put(client, "a", CONTENT)
    answer = await client.get(path_of("a"), headers={"Range": header})
    assert (answer.status_code, answer.content) == (206, CONTENT[start:end])
    assert answer.headers["content-range"].endswith(f"/{len(CONTENT)}")
    assert answer.headers["etag"] == ETAG


async def test_ranges_that_do_not_fit(client: httpx.AsyncClient) -> None:
    await put(client, "a", b"abc")
    answer = await client.get(path_of("a"), headers={"Range": "bytes=3-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */3")
    changed = await client.get(path_of("a"), headers={"Range": "bytes=1-", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, b"abc")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "/etc/passwd",
            "..",
            "a/../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "a\nb",
            "a\x00b",
            "a\x7f",
            "a\u2028b",
            "x" * 513,
        ),
        *sorted(RESERVED_NAMES),
    ],
)
async def test_names_that_lead_elsewhere_are_refused(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post("/v1/storage/upload-request", json={"filename": name})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "filename")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"filename": 1}', b'{"filename": null}', b'{"filename": "\\ud800"}'])
async def test_malformed_requests_are_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert (await client.post("/v1/storage/upload-request", content=body)).status_code == 400


async def test_a_signature_is_good_for_one_file_of_one_project_for_a_while(
    server: StorageServer, client: httpx.AsyncClient, stranger: httpx.AsyncClient, clock: Clock
) -> None:
    url = await upload_url(client, "mine")
    assert url.startswith(f"{server.base_url}/v1/storage/signed/")
    signature, other = url.rpartition("=")[2], "0" * 64
    mine, rival = await server.project_id("team"), await server.project_id("rival")
    expires = url.partition("expires=")[2].partition("&")[0]
    tampered = [
        url.replace("/mine?", "/other?"),
        url.replace(mine, rival),
        url.replace(f"expires={expires}", f"expires={int(expires) + 1}"),
        url.replace(f"expires={expires}", "expires=never"),
        url.replace(signature, other),
        url.replace(signature, ""),
        url.partition("?")[0],
        url.replace(signature, "%FF"),
    ]
    for wrong in tampered:
        answer = await stranger.put(wrong, content=b"x")
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
        assert "does not have our signature" in answer.json()["error"]["message"]
        assert signature not in answer.text
    assert (await stranger.get(url)).status_code == 401
    assert (await stranger.put(url, content=b"x")).status_code == 200
    clock.now += URL_LIFETIME_SECONDS + 1
    late = await stranger.put(url, content=b"y")
    assert (late.status_code, "has expired" in late.json()["error"]["message"]) == (403, True)
    assert (await client.get(path_of("mine"))).content == b"x"


async def test_the_url_names_the_host_by_which_the_client_came(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/storage/upload-request", json={"filename": "a"}, headers={"Host": "shop.example:8080"}
    )
    assert answer.json()["upload_url"]["url"].startswith("http://shop.example:8080/v1/storage/signed/")


async def test_the_secret_of_the_signatures_outlives_the_server(tmp_path: Path) -> None:
    async with server_process(tmp_path / "data") as server, server.client as client:
        url, first = await upload_url(client, "a"), server.host
        await put(client, "kept", CONTENT)
        await server.kill()
    async with server_process(tmp_path / "data") as server, server.client as client:
        assert (await client.put(url.replace(first, server.host), content=b"x")).status_code == 200
        assert (await client.get(path_of("kept"))).content == CONTENT


async def test_a_new_upload_replaces_the_old_one(client: httpx.AsyncClient, server: StorageServer) -> None:
    await put(client, "a", b"old")
    await put(client, "a", b"newer")
    assert (await client.get(path_of("a"))).content == b"newer"
    assert len(server.left_on_disk("blobs")) == 1
    assert server.left_on_disk("uploads") == []


async def test_readers_see_one_version_while_many_are_written(client: httpx.AsyncClient) -> None:
    versions = [bytes([index]) * (MIB + index) for index in range(8)]
    await put(client, "a", versions[0])

    async def read() -> bytes:
        answer = await client.get(path_of("a"))
        assert answer.status_code == 200
        return answer.content

    written = asyncio.gather(*(put(client, "a", version) for version in versions))
    for content in await asyncio.gather(*(read() for _ in range(20))):
        assert content in versions
    await written


async def test_a_deleted_file_is_gone(client: httpx.AsyncClient, server: StorageServer) -> None:
    await put(client, "a", CONTENT)
    assert (await client.delete(path_of("a"))).json() == {"object": "file", "path": "a", "deleted": True}
    for answer in (await client.get(path_of("a")), await client.head(path_of("a")), await client.delete(path_of("a"))):
        assert answer.status_code == 404
    assert server.left_on_disk("blobs") == []


async def test_another_project_sees_nothing(client: httpx.AsyncClient, server: StorageServer) -> None:
    await put(client, "a", CONTENT)
    async with server.client(await server.key("rival")) as rival:
        for answer in (await rival.get(path_of("a")), await rival.head(path_of("a")), await rival.delete(path_of("a"))):
            assert answer.status_code == 404
        await put(rival, "a", b"rival's")
    assert (await client.get(path_of("a"))).content == CONTENT


async def test_a_worker_key_reads_what_users_upload(client: httpx.AsyncClient, server: StorageServer) -> None:
    await put(client, "input", CONTENT)
    async with server.client(await server.key("team", Scope.WORKER)) as worker:
        assert (await worker.get(path_of("input"))).content == CONTENT
        assert (await worker.delete(path_of("input"))).status_code == 403


async def test_without_a_key_nothing_is_read(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.get(path_of("a"))).status_code == 401
    assert (await stranger.post("/v1/storage/upload-request", json={"filename": "a"})).status_code == 401


async def test_a_file_beyond_the_limit_is_refused(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, server: StorageServer
) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b"x" * MIB

    url = await upload_url(client, "big")
    for content in (b"x" * (LIMIT_BYTES + 1), stream()):
        answer = await stranger.put(url, content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
    assert (await client.get(path_of("big"))).status_code == 404
    assert server.left_on_disk("uploads") == server.left_on_disk("blobs") == []


async def test_a_full_disk_is_said_and_leaves_the_old_file(
    client: httpx.AsyncClient, stranger: httpx.AsyncClient, server: StorageServer
) -> None:
    await put(client, "a", b"old")
    url = await upload_url(client, "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, hard))
    try:
        answer = await stranger.put(url, content=b"x" * 4 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "disk_full")
    assert server.left_on_disk("uploads") == []
    assert (await client.get(path_of("a"))).content == b"old"


def break_off(url: str, content: bytes) -> None:
    """Announce twice the bytes and hang up after them."""
    parsed = httpx.URL(url)
    with socket.create_connection((parsed.host, parsed.port or 80)) as connection:
        head = f"PUT {parsed.raw_path.decode()} HTTP/1.1\r\nHost: {parsed.host}\r\n"
        connection.sendall(f"{head}Content-Length: {2 * len(content)}\r\n\r\n".encode() + content)


async def test_an_upload_that_breaks_off_leaves_the_old_file(client: httpx.AsyncClient, server: StorageServer) -> None:
    await put(client, "a", b"old")
    await asyncio.to_thread(break_off, await upload_url(client, "a"), CONTENT)
    uploads = server.data_directory / "uploads" / "files"
    await eventually(lambda: any(uploads.iterdir()))
    await eventually(lambda: server.left_on_disk("uploads") == [])
    assert (await client.get(path_of("a"))).content == b"old"
    assert len(server.left_on_disk("blobs")) == 1


async def test_what_crashes_left_is_removed_and_nothing_else(
    client: httpx.AsyncClient, server: StorageServer, clock: Clock
) -> None:
    await put(client, "kept", CONTENT)
    for folder in ("uploads/files/project", "blobs/files/00"):
        directory = server.data_directory / folder
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "leftover").write_bytes(b"x")
    assert await server.files.clean(clock.now) == 0
    assert await server.files.clean(clock.now + LEFTOVER_SECONDS + 60) == 2
    assert (await client.get(path_of("kept"))).content == CONTENT
    assert server.left_on_disk("uploads") == []
    assert len(server.left_on_disk("blobs")) == 1


async def test_a_file_whose_bytes_are_lost_is_a_defect_that_shows_no_traceback(
    client: httpx.AsyncClient, server: StorageServer, caplog: pytest.LogCaptureFixture
) -> None:
    await put(client, "a", CONTENT)
    for path in server.left_on_disk("blobs"):
        path.unlink()
    answer = await client.get(path_of("a"))
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "files.bytes_missing" in caplog.text
