"""What callers and replicas may try: requests inside of requests, lies about lengths, endless and odd things."""

import asyncio
import re
from collections.abc import Coroutine

import pytest
from aiohttp import web

from gateway.caller import PREFIX, Caller, recorder, upstream

INSIDE = b"GET /v1/deployment-request/hello/inside HTTP/1.1\r\nHost: x\r\n\r\n"


AMBIGUOUS = [
    (b"Content-Length: 4\r\nTransfer-Encoding: chunked", b"0\r\n\r\n" + INSIDE),
    (b"Transfer-Encoding: chunked\r\nContent-Length: 4", b"0\r\n\r\n" + INSIDE),
    (b"Content-Length: 0\r\nContent-Length: %d" % len(INSIDE), INSIDE),
    (b"Content-Length: +5", b"hello"),
    (b"Content-Length: 0x5", b"hello"),
    (b"Content-Length: -1", b"hello"),
    (b"Content-Length: 99999999999999999999999", b"hello"),
    (b"Transfer-Encoding : chunked", b"0\r\n\r\n"),
    (b"Transfer-Encoding: identity", b"hello"),
    (b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n" + INSIDE),
    (b"Transfer-Encoding: xchunked", b"0\r\n\r\n" + INSIDE),
    (b"Transfer-Encoding: chunked", b"5;\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"-5\r\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nContent-Length: 40\r\n\r\n"),
    (b"X-A: b\r\n folded: c", b""),
    (b"X-A: b\nContent-Length: 5", b"hello"),
    (b"X-A: b\r\rContent-Length: 5", b"hello"),
    (b"X A: b", b""),
    (b": b", b""),
    (b"X-A: b\0c", b""),
]


async def test_what_two_servers_might_read_differently_reaches_no_replica(caller: Caller) -> None:
    async with recorder() as (port, heads):
        caller.serve(port)
        for headers, body in AMBIGUOUS:
            got = await caller.raw(f"POST {PREFIX}echo HTTP/1.1", b"Connection: close\r\n" + headers, body)
            assert not got.startswith(b"HTTP/1.1 200 "), headers
            assert len(re.findall(rb"HTTP/1\.1 \d\d\d ", got)) <= 1, headers
        assert not any(b"inside" in head for head in heads)


async def test_trailers_do_not_become_headers(caller: Caller) -> None:
    async with recorder() as (port, heads):
        caller.serve(port)
        trailers = b"0\r\nX-Trailer: 1\r\nAuthorization: Bearer x\r\n\r\n"
        got = await caller.raw(
            f"POST {PREFIX}echo HTTP/1.1",
            b"Connection: close\r\nTransfer-Encoding: chunked",
            b"5\r\nhello\r\n" + trailers,
        )
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"x-trailer" not in heads[0]
    assert re.findall(rb"content-length: (\d+)", heads[0]) in ([], [b"5"])


async def test_a_body_in_pieces_is_framed_anew(caller: Caller) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(
            body=await request.read(), headers={"X-Seen": str(request.headers.get("Transfer-Encoding"))}
        )

    async with upstream(echo) as port:
        caller.serve(port)
        body = b"3;ext=1\r\nabc\r\n" + b"10000\r\n" + b"x" * 0x10000 + b"\r\n0\r\n\r\n"
        got = await caller.raw(f"POST {PREFIX}x HTTP/1.1", b"Connection: close\r\nTransfer-Encoding: chunked", body)
    assert got.endswith(b"\r\n\r\nabc" + b"x" * 0x10000)


async def test_requests_behind_one_another_each_get_their_own_answer(caller: Caller) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(text=f"<{request.path}>")

    async with upstream(echo) as port:
        caller.serve(port)
        second = caller.head(f"GET {PREFIX}two HTTP/1.1") + b"Connection: close\r\n\r\n"
        got = await caller.raw(f"POST {PREFIX}one HTTP/1.1", b"Content-Length: 5", b"hello" + second)
    assert re.findall(rb"<(/\w+)>", got) == [b"/one", b"/two"]


async def test_an_absolute_target_names_no_other_host(caller: Caller) -> None:
    async with recorder() as (port, heads):
        caller.serve(port)
        for host in ("http://evil.example", "HTTP://EVIL.example:80"):
            got = await caller.raw(f"GET {host}{PREFIX}a%2Fb?c=%20 HTTP/1.1")
            assert got.startswith(b"HTTP/1.1 200 ")
            assert heads.pop().startswith(b"GET /a%2Fb?c=%20 HTTP/1.1\r\nhost: 127.0.0.1:")


async def test_paths_are_kept_as_they_are(caller: Caller) -> None:
    async with recorder() as (port, heads):
        caller.serve(port)
        for path in ("a//b", "../../v3/whoami", "%2e%2e/x", "a;b=c", "%00", "%ff%fe", "a%0d%0aX:%20b", "", "?"):
            got = await caller.raw(f"GET {PREFIX}{path} HTTP/1.1")
            assert got.startswith(b"HTTP/1.1 200 ")
            assert heads.pop().startswith(f"GET /{path.rstrip('?')} HTTP/1.1\r\n".encode())


async def test_a_caller_is_told_to_go_on_before_it_sends_its_body(caller: Caller) -> None:
    async def echo(request: web.Request) -> web.Response:
        assert "Expect" not in request.headers
        return web.Response(body=await request.read())

    async with upstream(echo) as port, asyncio.timeout(60):
        caller.serve(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
        head = b"Expect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
        writer.write(caller.head(f"POST {PREFIX}echo HTTP/1.1") + head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await reader.read()).endswith(b"\r\n\r\nhello")
        writer.close()


async def test_answers_that_only_announce_another_are_left_out(caller: Caller) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    async with recorder(early + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as (port, _):
        caller.serve(port)
        got = await caller.raw(f"GET {PREFIX}x HTTP/1.1")
    assert got.startswith(b"HTTP/1.1 200 ")
    assert b"link" not in got
    assert got.endswith(b"ok")


@pytest.mark.parametrize(
    "more",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nanother", b"garbage", b"\r\n"],
    ids=["answer", "garbage", "line"],
)
async def test_what_a_replica_says_beyond_its_answer_reaches_nobody(caller: Caller, more: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            name = head.split(b" ")[1]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(name) + name + more)

    server = await asyncio.start_server(lambda r, w: _until_end(serve(r, w), w), "127.0.0.1", 0)
    async with server:
        caller.serve(server.sockets[0].getsockname()[1])
        for name in ("/one", "/two", "/three"):
            async with caller.session.get(name.removeprefix("/")) as answer:
                assert await answer.text() == name


async def _until_end(serving: Coroutine[None, None, None], writer: asyncio.StreamWriter) -> None:
    try:
        await serving
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA=="


@pytest.mark.parametrize(
    ("switch", "ask"),
    [
        (SWITCH + b"\r\n", b"Connection: close"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"Connection: close"),
        (SWITCH + b"X-A: b\x01c\r\n\r\n", WEBSOCKET),
    ],
    ids=["unasked", "bare", "malformed"],
)
async def test_a_connection_that_a_replica_switched_is_not_used_again(
    caller: Caller, switch: bytes, ask: bytes
) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        answer = switch if connections == 1 else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)

    server = await asyncio.start_server(lambda r, w: _until_end(serve(r, w), w), "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        caller.serve(server.sockets[0].getsockname()[1])
        assert (await caller.raw(f"GET {PREFIX}x HTTP/1.1", ask)).startswith(b"HTTP/1.1 502 ")
        async with caller.session.get("x") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
    assert connections == 2


@pytest.mark.parametrize("whole", [True, False])
async def test_a_head_larger_than_may_be_is_refused_also_where_it_comes_at_once(caller: Caller, whole: bool) -> None:
    lines = b"".join(b"X-%d: " % number + b"v" * 1000 + b"\r\n" for number in range(100))
    end = b"Content-Length: 2\r\n\r\nok" if whole else b""
    async with recorder(b"HTTP/1.1 200 OK\r\n" + lines + end) as (port, _):
        caller.serve(port)
        async with caller.session.get("x") as answer:
            assert answer.status == 502
            assert "a head of more than 65536 bytes" in (await answer.json())["error"]["message"]


async def test_a_body_that_comes_with_its_head_does_not_count_as_one(caller: Caller) -> None:
    async with recorder(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000) as (port, _):
        caller.serve(port)
        async with caller.session.get("x") as answer:
            assert len(await answer.read()) == 200_000


async def test_a_head_answer_with_a_body_spoils_no_other_answer(caller: Caller) -> None:
    async with recorder(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as (port, _):
        caller.serve(port)
        for _ in range(2):
            async with caller.session.head("x") as answer:
                assert answer.headers["Content-Length"] == "2"
        async with caller.session.get("x") as answer:
            assert await answer.text() == "ok"


async def test_an_answer_without_a_length_ends_with_its_connection(caller: Caller) -> None:
    async with recorder(b"HTTP/1.0 200 OK\r\n\r\nto the end") as (port, _):
        caller.serve(port)
        async with caller.session.get("x") as answer:
            assert await answer.text() == "to the end"


async def test_an_answer_before_the_body_has_come_is_passed_on(caller: Caller) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        while await reader.read(65536):  # as nginx does: closing at once would reset the connection
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        caller.serve(server.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
        writer.write(caller.head(f"POST {PREFIX}x HTTP/1.1") + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert await reader.readexactly(2) == b"no"
        writer.close()


async def test_a_slow_reader_makes_the_replica_wait(caller: Caller) -> None:
    sent = 0
    chunk = b"x" * 65536
    total = 2000 * len(chunk)

    async def stream(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Length": str(total)})
        await response.prepare(request)
        for _ in range(2000):
            await response.write(chunk)
            sent += len(chunk)
        return response

    async with upstream(stream) as port, asyncio.timeout(60):
        caller.serve(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", caller.port, limit=1024)
        writer.write(caller.head(f"GET {PREFIX}x HTTP/1.1") + b"Connection: close\r\n\r\n")
        before = -1
        while before != sent or not sent:  # until the replica stands still
            before = sent
            await asyncio.sleep(0.3)
        assert sent < total / 2
        size = 0
        while part := await reader.read(1 << 20):
            size += len(part)
        assert size > total
        writer.close()


async def test_request_ids_are_kept_or_made_and_errors_have_them_too(caller: Caller) -> None:
    async with caller.session.get("x", headers={"X-Request-ID": "mine-1"}) as answer:
        assert answer.status == 503
        assert answer.headers["X-Request-ID"] == "mine-1"
    async with caller.session.get("x", headers={"Authorization": "Bearer wrong"}) as answer:
        assert len(answer.headers["X-Request-ID"]) == 36


async def test_the_access_log_has_a_line_for_each_request_without_secrets(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="machineshop.gateway.access")
    async with recorder() as (port, _):
        caller.serve(port)
        await caller.raw(
            f"POST {PREFIX}a%20b?token=secret HTTP/1.1",
            b"Connection: close\r\nContent-Length: 2\r\nX-Request-ID: a b\xe9",
            b"hi",
        )
    (line,) = [record.getMessage() for record in caplog.records if record.name == "machineshop.gateway.access"]
    assert line.startswith("gateway.access method=POST path=/v1/deployment-request/hello/a%20b status=200 ms=")
    assert " in=2 out=2 deployment=hello replica=r0 key=" in line
    assert line.endswith(" client=127.0.0.1 request_id=a%20b\\xe9")
    assert "secret" not in line
