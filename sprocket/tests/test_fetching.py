"""Downloads from servers that break off, change their mind, lie or say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import select
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sprocket_raw_server import RawServer, Script, answer

from sprocket import InputError, guard
from sprocket.config import Config, PlatformConfig
from sprocket.downloads import MAX_INPUTS, Downloader
from sprocket.fetching import Fetcher
from sprocket.partial import Budget, PartialFile
from sprocket.platform import Platform

WHOLE = b"0123456789"
ETAG = '"v1"'


@asynccontextmanager
async def downloading(server: RawServer, *, nested: bool = False, **settings: Any) -> AsyncIterator[Downloader]:
    """A downloader to whom the server is the platform, so that plain http will do."""
    await server.start()
    platform = Platform(PlatformConfig(server.url, "key", "hello", "host"))
    downloader = Downloader(Config(**settings), platform, nested=nested)
    try:
        yield downloader
    finally:
        await downloader.close()
        await platform.close()
        await server.stop()


def content_of(path: str) -> bytes:
    return Path(path).read_bytes()


def files_in(directory: Path) -> list[Path]:
    return list(directory.glob("*/*"))


async def fetched(server: RawServer, directory: Path, **settings: Any) -> bytes:
    async with downloading(server, **settings) as downloader:
        payload = await downloader.fetch({"file": f"{server.url}/v1/storage/a.bin"}, directory)
        return content_of(payload["file"])


async def refused(server: RawServer, directory: Path, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        await fetched(server, directory, **settings)
    assert str(caught.value).startswith("input 'file': ")
    return str(caught.value)


def broken(body: bytes, **headers: str) -> Script:
    """The beginning of an answer of ten bytes."""
    return Script(answer("200 OK", body, length=10, **headers))


def rest(body: bytes, content_range: str) -> Script:
    return Script(answer("206 Partial Content", body, content_range=content_range))


async def test_a_broken_download_goes_on_where_it_broke(tmp_path: Path) -> None:
    server = RawServer(
        broken(b"0123", etag=ETAG),
        Script(answer("206 Partial Content", b"45", length=6, content_range="bytes 4-9/10")),
        rest(b"6789", "bytes 6-9/10"),
    )
    assert await fetched(server, tmp_path) == WHOLE
    assert [head.get("range") for head in server.heads] == [None, "bytes=4-", "bytes=6-"]
    assert [head.get("if-range") for head in server.heads] == [None, ETAG, ETAG]
    assert all(head["authorization"] == "Bearer key" for head in server.heads)
    assert all(head["accept-encoding"] == "identity" for head in server.heads)


async def test_a_date_vouches_for_the_file_where_no_strong_etag_does(tmp_path: Path) -> None:
    date = "Mon, 02 Nov 2026 10:00:00 GMT"
    server = RawServer(broken(b"0123", etag='W/"v1"', last_modified=date), rest(b"456789", "bytes 4-9/10"))
    assert await fetched(server, tmp_path) == WHOLE
    assert server.heads[1]["if-range"] == date


@pytest.mark.parametrize(
    "second",
    [
        Script(answer("200 OK", b"changed")),
        rest(b"56789", "bytes 5-9/10"),
        rest(b"456789", "bytes 4-9/11"),
        rest(b"456789", "nonsense"),
        Script(answer("416 Range Not Satisfiable")),
    ],
    ids=["changed", "another-part", "another-length", "nonsense", "shorter"],
)
async def test_a_file_that_is_no_longer_the_same_is_fetched_from_its_beginning(tmp_path: Path, second: Script) -> None:
    server = RawServer(broken(b"0123", etag=ETAG), second, Script(answer("200 OK", b"changed")))
    assert await fetched(server, tmp_path) == b"changed"
    assert len(files_in(tmp_path)) == 1


async def test_without_a_version_all_is_fetched_anew(tmp_path: Path) -> None:
    server = RawServer(broken(b"0123"), Script(answer("200 OK", WHOLE)))
    assert await fetched(server, tmp_path) == WHOLE
    assert "range" not in server.heads[1]


async def test_as_long_as_more_comes_it_is_tried_on(tmp_path: Path) -> None:
    parts = [
        Script(answer("206 Partial Content", b"%d" % at, length=10 - at, content_range=f"bytes {at}-9/10"))
        for at in range(1, 10)
    ]
    server = RawServer(broken(b"0", etag=ETAG), *parts)
    assert await fetched(server, tmp_path) == WHOLE


async def test_a_length_that_is_a_lie_ends_after_three_tries(tmp_path: Path) -> None:
    server = RawServer(broken(b"0123", etag=ETAG))
    assert "the connection was closed" in await refused(server, tmp_path)
    assert len(server.heads) == 3


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "the connection was closed"),
        (b"220 mail.example ESMTP\r\n", "the answer is not understood"),
        (b"HTTP/1.1 200 OK\r\nX-Big: " + b"x" * 100_000 + b"\r\n\r\n", "the answer is not understood"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the answer is not understood"),
    ],
    ids=["nothing", "no-http", "huge-header", "bad-chunk"],
)
async def test_what_is_no_answer_fails_the_input(tmp_path: Path, data: bytes, complaint: str) -> None:
    assert complaint in await refused(RawServer(Script(data)), tmp_path)


async def test_silence_has_a_limit_for_one_input_and_for_all(tmp_path: Path) -> None:
    silent = [Script(answer("200 OK", b"0123", length=10), hangs=True)]
    complaint = await refused(RawServer(*silent), tmp_path, input_timeout_seconds=0.3)
    assert "not fetched within 0.3 s" in complaint
    server = RawServer(*silent)
    async with downloading(server, job_input_timeout_seconds=0.3) as downloader:
        (tmp_path / "two").mkdir()
        payload = {name: f"{server.url}/v1/storage/{name}" for name in "abcdefgh"}
        with pytest.raises(InputError, match=r"the job's inputs were not all fetched within 0\.3 s"):
            await downloader.fetch(payload, tmp_path / "two")


async def test_the_inputs_of_a_job_have_a_limit_together(tmp_path: Path) -> None:
    server = RawServer(Script(answer("200 OK", WHOLE)))
    async with downloading(server, max_job_input_bytes=25) as downloader:
        payload = {name: f"{server.url}/v1/storage/{name}" for name in "abc"}
        with pytest.raises(InputError, match="the job's inputs are larger than 25 bytes"):
            await downloader.fetch(payload, tmp_path)


async def test_what_was_thrown_away_does_not_count(tmp_path: Path) -> None:
    server = RawServer(broken(b"0123"), broken(b"01234567"), Script(answer("200 OK", WHOLE)))
    assert await fetched(server, tmp_path, max_job_input_bytes=10) == WHOLE


async def test_a_job_has_so_many_inputs_at_most(tmp_path: Path) -> None:
    server = RawServer(Script(b""))
    async with downloading(server, nested=True) as downloader:
        with pytest.raises(InputError, match="names 1001 files; a job may have 1000"):
            await downloader.fetch({"all": [f"{server.url}/v1/storage/a"] * (MAX_INPUTS + 1)}, tmp_path)
    assert server.heads == []


async def test_nested_inputs_of_one_name_get_paths_of_their_own(tmp_path: Path) -> None:
    server = RawServer(Script(answer("200 OK", WHOLE)))
    async with downloading(server, nested=True) as downloader:
        address = f"{server.url}/v1/storage"
        payload = await downloader.fetch(
            {"a": [{"f": f"{address}/x/in.txt"}, f"{address}/y/in.txt"], "b": "text"}, tmp_path
        )
    paths = [Path(payload["a"][0]["f"]), Path(payload["a"][1])]
    assert [path.name for path in paths] == ["in.txt", "in.txt"]
    assert paths[0] != paths[1]
    assert [path.read_bytes() for path in paths] == [WHOLE, WHOLE]


async def test_a_nested_input_is_named_by_its_place(tmp_path: Path) -> None:
    server = RawServer(Script(answer("404 Not Found")))
    async with downloading(server, nested=True) as downloader:
        with pytest.raises(InputError, match=r"input 'a'\[0\]\['b'\]: http://.* answered 404"):
            await downloader.fetch({"a": [{"b": f"{server.url}/v1/storage/x"}]}, tmp_path)


async def test_compression_that_nobody_asked_for_is_undone_also_across_a_break(tmp_path: Path) -> None:
    text = b"so long a text " * 10_000
    body = gzip.compress(text)
    half = len(body) // 2
    server = RawServer(
        Script(answer("200 OK", body[:half], length=len(body), etag=ETAG, content_encoding="gzip")),
        rest(body[half:], f"bytes {half}-{len(body) - 1}/{len(body)}"),
    )
    assert await fetched(server, tmp_path) == text


@pytest.mark.parametrize(
    ("encoding", "body", "complaint"),
    [
        ("gzip", gzip.compress(bytes(50_000_000)), "it is larger than 1000 bytes"),
        ("gzip", gzip.compress(b"text")[:-3], "its compression is cut off"),
        ("gzip", b"plain", "its compression is broken"),
        ("br", b"whatever", "Content-Encoding 'br'"),
    ],
    ids=["a bomb", "cut off", "broken", "unknown"],
)
async def test_compression_that_is_a_bomb_or_broken_fails_the_input(
    tmp_path: Path, encoding: str, body: bytes, complaint: str
) -> None:
    server = RawServer(Script(answer("200 OK", body, content_encoding=encoding)))
    assert complaint in await refused(server, tmp_path, max_input_bytes=1000)
    assert sum(path.stat().st_size for path in files_in(tmp_path)) <= 1000


async def test_credentials_in_a_storage_address_do_not_replace_the_key(tmp_path: Path) -> None:
    server = RawServer(Script(answer("200 OK", WHOLE)))
    async with downloading(server, allow_private_downloads=True) as downloader:
        server.scripts.insert(
            0, Script(answer("302 Found", location=f"http://u:p@127.0.0.1:{server.port}/v1/storage/b"))
        )
        payload = await downloader.fetch({"file": f"{server.url}/v1/storage/a"}, tmp_path)
        assert content_of(payload["file"]) == WHOLE
    assert [head["authorization"] for head in server.heads] == ["Bearer key", "Bearer key"]


async def test_what_was_checked_is_what_is_connected_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers with a private address the second time gains nothing."""
    public, private = RawServer(Script(answer("200 OK", WHOLE))), RawServer(Script(answer("200 OK", b"secret")))
    await public.start("127.0.0.1")
    await private.start("127.0.0.2", public.port)
    # This machine has no public address, so one of its own has to play it.
    monkeypatch.setattr(guard, "is_public", lambda address: address == "127.0.0.1")
    answers = ["127.0.0.1", "127.0.0.2"]
    asked: list[str] = []

    def resolve(host: str, port: int, *_: object, **__: object) -> list[Any]:
        asked.append(answers.pop(0))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (asked[-1], port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    fetcher = Fetcher(Config(), None)
    with contextlib.closing(PartialFile(tmp_path / "a", Budget(100, 100))) as file:
        await fetcher.fetch(f"http://rebinding.test:{public.port}/x", file)
    assert ((tmp_path / "a").read_bytes(), asked) == (WHOLE, ["127.0.0.1"])
    blocked = pytest.raises(InputError, match="is not on the public internet")
    with contextlib.closing(PartialFile(tmp_path / "b", Budget(100, 100))) as file, blocked:
        await fetcher.fetch(f"http://rebinding.test:{public.port}/x", file)
    assert (private.heads, answers) == ([], [])
    await fetcher.close()
    await public.stop()
    await private.stop()


async def test_a_cancel_in_the_middle_leaves_nothing_open(tmp_path: Path) -> None:
    server = RawServer(Script(answer("200 OK", b"0123", length=10), hangs=True))
    async with downloading(server) as downloader:
        fetching = asyncio.ensure_future(downloader.fetch({"file": f"{server.url}/v1/storage/a"}, tmp_path))
        async with asyncio.timeout(60):
            while not any(path.stat().st_size for path in files_in(tmp_path)):
                await asyncio.sleep(0.01)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching


def test_a_file_that_is_given_up_while_a_thread_writes_to_it_is_closed_though_the_loop_has_ended(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "slow")
    reader = os.open(tmp_path / "slow", os.O_RDONLY | os.O_NONBLOCK)
    received = bytearray()

    def drain() -> None:
        os.set_blocking(reader, True)
        while data := os.read(reader, 1 << 20):  # until the file is closed
            received.extend(data)

    draining = threading.Thread(target=drain, daemon=True)

    async def chunks() -> AsyncIterator[bytes]:
        yield WHOLE * 100_000  # more than a pipe holds

    async def give_up() -> None:
        file = PartialFile(tmp_path / "slow", Budget(1 << 20, 1 << 20))
        taking = asyncio.ensure_future(file.take(chunks()))
        async with asyncio.timeout(60):
            while not select.select([reader], [], [], 0)[0]:
                await asyncio.sleep(0.01)
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await taking
        file.close()
        draining.start()

    asyncio.run(give_up())
    draining.join(60)
    os.close(reader)
    assert not draining.is_alive()
    assert bytes(received) == WHOLE * 100_000
