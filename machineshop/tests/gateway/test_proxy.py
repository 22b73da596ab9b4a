"""The gateway: which replica, which headers, and bytes that flow both ways through a real socket."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from gateway.caller import PREFIX, Caller, recorder, replica, upstream
from machineshop.gateway import headers
from machineshop.gateway.balancer import choose
from ports import reserve_port


def test_the_replica_with_the_fewest_requests_is_chosen() -> None:
    a, b = replica("a"), replica("b", ready=2.0)
    assert choose([a, b], lambda name: {"a": 2, "b": 1}[name], ()) == b
    assert choose([b, a], none_in_flight, ()) == a  # the longest ready one of equals
    assert choose([a, b], none_in_flight, {("a", 1.0)}) == b


def none_in_flight(_replica_id: str) -> int:
    return 0


def test_only_ready_replicas_that_do_not_drain_are_chosen() -> None:
    assert choose([replica("a", ready=None), replica("b", draining=True)], none_in_flight, ()) is None


def test_keys_and_hop_by_hop_headers_do_not_reach_the_replica() -> None:
    sent = headers.to_replica(
        [
            (b"authorization", b"Bearer secret"),
            (b"cookie", b"secret"),
            (b"host", b"platform"),
            (b"connection", b"keep-alive, X-Once"),
            (b"x-once", b"1"),
            (b"transfer-encoding", b"chunked"),
            (b"content-length", b"5"),
            (b"expect", b"100-continue"),
            (b"x-forwarded-for", b"a lie"),
            (b"forwarded", b"for=a-lie"),
            (b"x-real-ip", b"a lie"),
            (b"x-machineshop-relayed-by", b"a lie"),
            (b"accept", b"*/*"),
        ],
        [(b"x-forwarded-for", b"1.2.3.4"), (b"x-request-id", b"id-1")],
    )
    assert sent == b"accept: */*\r\nx-forwarded-for: 1.2.3.4\r\nx-request-id: id-1\r\n"


def test_the_callers_answer_has_our_headers_where_they_are_ours_and_no_cookies() -> None:
    answered = headers.to_client(
        [(b"date", b"x"), (b"server", b"x"), (b"connection", b"close"), (b"etag", b"e"), (b"set-cookie", b"a=b")],
        200,
        b"id-1",
    )
    assert answered == [(b"etag", b"e"), (b"x-request-id", b"id-1")]


async def test_any_path_method_query_and_body_reach_the_replica(caller: Caller) -> None:
    async def echo(request: web.Request) -> web.Response:
        seen = {"method": request.method, "path": request.raw_path, "body": await request.text()}
        return web.json_response({**seen, "key": request.headers.get("Authorization")}, status=201)

    async with upstream(echo) as port:
        caller.serve(port)
        async with caller.session.put("v1/a%2Fb?q=%20x", data="hello") as answer:
            assert answer.status == 201
            assert await answer.json() == {"method": "PUT", "path": "/v1/a%2Fb?q=%20x", "body": "hello", "key": None}
            assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/deployment-request/hello/a%2Fb",
        "/v1/v1/deployment-request/hello/a%2Fb",
        "/v1/deployment%2Drequest/hello/a%2Fb",
        "/v1/deployment-request/h%65llo/a%2Fb",
        "/v1%2Fdeployment-request%2fhello%2Fa%2Fb",
        "/v1%2Fv1/deployment-request/hello/a%2Fb",
    ],
)
async def test_only_the_replicas_own_part_of_the_path_reaches_it(caller: Caller, path: str) -> None:
    async with recorder() as (port, heads):
        caller.serve(port)
        answer = await caller.raw(f"GET {path}?q=%2F HTTP/1.1")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert heads[0].startswith(b"GET /a%2Fb?q=%2F HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "value", [b"caf\xe9", "caf\u00e9 \u65e5\u672c".encode(), b"\xff\xfe"], ids=["latin-1", "utf-8", "neither"]
)
@pytest.mark.parametrize("body", [b"", b"hello"], ids=["no body", "body"])
async def test_bytes_in_headers_pass_unchanged_in_both_directions(caller: Caller, value: bytes, body: bytes) -> None:
    back = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Back: " + value + b"\r\n\r\nok"
    there = b"X-There: %s\r\nX-Request-Id: %s\r\nContent-Length: %d\r\nConnection: close" % (value, value, len(body))
    async with recorder(back) as (port, heads):
        caller.serve(port)
        answer = await caller.raw(f"POST {PREFIX}echo HTTP/1.1", there, body)
    assert b"x-there: " + value + b"\r\n" in heads[0]
    assert b"x-request-id: " + value + b"\r\n" in heads[0]
    assert b"x-back: " + value + b"\r\n" in answer
    assert b"x-request-id: " + value + b"\r\n" in answer
    assert answer.endswith(b"\r\n\r\nok")


async def test_bodies_and_later_requests_are_untouched_by_bytes_in_headers(caller: Caller) -> None:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    body = "caf\u00e9\r\n\r\n\u65e5".encode()
    async with upstream(echo) as port:
        caller.serve(port)
        for name in ["caf\u00e9", "plain", "caf\u00e9"]:  # on one connection to the replica
            for data in [body, parts_of(body)]:
                async with caller.session.post("echo", data=data, headers={"X-Name": name}) as answer:
                    assert await answer.read() == body


async def parts_of(body: bytes) -> AsyncIterator[bytes]:
    for byte in body:
        yield bytes([byte])


async def test_without_a_ready_replica_the_caller_hears_when_to_come_back(caller: Caller) -> None:
    async with caller.session.post("generate", json={}) as answer:
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert (await answer.json())["error"]["code"] == "no_ready_replica"


async def test_parts_arrive_as_they_are_made(caller: Caller) -> None:
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go_on.wait()
        await response.write(b"data: 2\n\n")
        return response

    async with upstream(stream) as port:
        caller.serve(port)
        async with caller.session.get("events") as answer, asyncio.timeout(60):
            assert await answer.content.readany() == b"data: 1\n\n"
            go_on.set()
            assert await answer.content.read() == b"data: 2\n\n"


async def test_a_large_body_goes_up_while_it_is_made(caller: Caller) -> None:
    arrived = asyncio.Event()
    size = 0

    async def count(request: web.Request) -> web.Response:
        nonlocal size
        async for part in request.content.iter_any():
            size += len(part)
            arrived.set()
        return web.json_response({"size": size})

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        await arrived.wait()  # the replica has the first part before the last one is made
        for _ in range(100):
            yield b"x" * 100_000

    async with upstream(count) as port, asyncio.timeout(60):
        caller.serve(port)
        async with caller.session.post("upload", data=parts()) as answer:
            assert await answer.json() == {"size": 10_100_000}


async def test_a_caller_that_hangs_up_hangs_up_on_the_replica(caller: Caller) -> None:
    reached, ended = asyncio.Event(), asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reached.set()
        while await reader.read(1024):
            pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    caller.serve(server.sockets[0].getsockname()[1])
    async with server, asyncio.timeout(60):
        asking = asyncio.create_task(caller.session.post("generate", json={}).__aenter__())
        await reached.wait()
        asking.cancel()
        await ended.wait()


async def test_a_replica_that_is_gone_is_passed_over(caller: Caller) -> None:
    async def fine(_request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    gone = reserve_port()
    async with upstream(fine) as port:
        caller.serve(gone, port)
        async with caller.session.post("generate", json={"a": 1}) as answer:
            assert await answer.json() == {"ok": True}
        caller.serve(gone)
        async with caller.session.get("generate") as answer:
            assert answer.status == 502
            assert (await answer.json())["error"]["code"] == "replica_unreachable"


async def test_a_post_that_a_replica_has_begun_to_read_is_not_sent_twice(caller: Caller) -> None:
    seen = []

    async def breaks(request: web.Request) -> web.Response:
        seen.append(await request.text())
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with upstream(breaks) as port, upstream(breaks) as other:
        caller.serve(port, other)
        async with caller.session.post("generate", json={"a": 1}) as answer:
            assert answer.status == 502
            assert (await answer.json())["error"]["code"] == "replica_unreachable"
    assert seen == ['{"a": 1}']


async def test_an_answer_that_breaks_off_is_not_passed_off_as_whole(caller: Caller) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.abort()
        return response

    async with upstream(half) as port:
        caller.serve(port)
        with pytest.raises(aiohttp.ClientError):
            async with caller.session.get("download") as answer:
                await answer.read()


@pytest.mark.parametrize(
    "answer",
    [b"Content-Length: 20\r\n\r\nok", b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"],
    ids=["too short", "no last chunk"],
)
async def test_an_answer_cut_short_is_cut_short_for_the_caller_and_logged_without_a_traceback(
    caller: Caller, caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    async with recorder(b"HTTP/1.1 200 OK\r\n" + answer) as (port, _):
        caller.serve(port)
        got = await caller.raw(f"GET {PREFIX}download HTTP/1.1", b"Connection: keep-alive")  # ends when it is cut
    assert got.startswith(b"HTTP/1.1 200 ")
    assert not got.endswith(b"0\r\n\r\n")
    assert not any(record.exc_info for record in caplog.records)
    ours = [record for record in caplog.records if record.name.startswith("machineshop")]
    assert [record.levelname for record in ours] == ["WARNING"]
    assert ours[0].getMessage().startswith("gateway.cut deployment=hello replica=r0 ")


async def test_garbage_is_the_replicas_fault_and_asked_for_once(caller: Caller) -> None:
    async with recorder(b"garbage\r\n\r\n") as (port, heads), recorder(b"garbage\r\n\r\n") as (other, more):
        caller.serve(port, other)
        async with caller.session.get("generate") as answer:
            assert answer.status == 502
            assert (await answer.json())["error"]["code"] == "impossible_answer"
    assert (len(heads), len(more)) == (1, 0)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"999 What\r\nContent-Length: 2\r\n\r\nok", "status 999"),
        (b"600 What\r\nContent-Length: 2\r\n\r\nok", "status 600"),
        (b"101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "status 101"),
        (b"200 OK\r\nContent-Length: 2\r\nX-A: a\x01b\r\n\r\nok", "words: Invalid header value char"),
        (b"200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "words: Duplicate Content-Length"),
        (b"200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", "words: Transfer-Encoding can't"),
        (b"200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nok", "words: transfer-encoding 'gzip, chunked'"),
        (b"200 OK\r\n" + b"X-A: b\r\n" * 201 + b"\r\n", "words: more than 200 headers"),
        (b"200 OK\r\nX-A: " + b"b" * 70_000, "words: a head of more than 65536 bytes"),
        (b"100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3000, "words: a head of more than"),
    ],
)
async def test_an_impossible_answer_is_the_replicas_fault(
    caller: Caller, caplog: pytest.LogCaptureFixture, answer: bytes, what: str
) -> None:
    async with recorder(b"HTTP/1.1 " + answer) as (port, _):
        caller.serve(port)
        async with caller.session.get("generate") as got:
            assert got.status == 502
            error = (await got.json())["error"]
    assert error["code"] == "impossible_answer"
    assert f"answered with the impossible {what}" in error["message"]
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("GET", b"304 Not Modified\r\nContent-Length: 100\r\nETag: x\r\n\r\n"),
        ("GET", b"204 No Content\r\nContent-Length: 5\r\nETag: x\r\n\r\n"),
        ("GET", b"204 No Content\r\nTransfer-Encoding: chunked\r\nETag: x\r\n\r\n"),
        ("HEAD", b"304 Not Modified\r\nContent-Length: 100\r\nETag: x\r\n\r\n"),
        ("HEAD", b"200 OK\r\nContent-Length: 100\r\nETag: x\r\n\r\n"),
        ("HEAD", b"200 OK\r\nTransfer-Encoding: chunked\r\nETag: x\r\n\r\n"),
    ],
)
async def test_an_answer_without_a_body_is_whole_whatever_its_length_says(
    caller: Caller, caplog: pytest.LogCaptureFixture, method: str, answer: bytes
) -> None:
    async with recorder(b"HTTP/1.1 " + answer) as (port, _):
        caller.serve(port)
        got = await caller.raw(f"{method} {PREFIX}file HTTP/1.1")
    assert got.split(b" ")[1] == answer[:3]
    assert b"\r\netag: x\r\n" in got
    assert got.endswith(b"\r\n\r\n")
    assert got.count(b"\r\n\r\n") == 1
    assert not caplog.records


async def test_the_length_of_what_a_head_request_leaves_out_is_told(caller: Caller) -> None:
    async with recorder(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n") as (port, _):
        caller.serve(port)
        async with caller.session.head("file") as answer:
            assert answer.headers["Content-Length"] == "100"


@pytest.mark.parametrize("key", ["", "Bearer wrong"])
async def test_without_a_valid_key_nothing_is_forwarded(caller: Caller, key: str) -> None:
    async with caller.session.get("generate", headers={"Authorization": key}) as answer:
        assert answer.status == 401


async def test_an_unknown_deployment_is_not_found(caller: Caller) -> None:
    async with caller.session.get("../none-such/generate") as answer:
        assert answer.status == 404
