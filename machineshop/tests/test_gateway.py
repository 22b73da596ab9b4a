"""The gateway: which replica, which headers, and bytes that flow both ways through a real socket."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import msgspec
import pytest
import uvicorn
from aiohttp import web
from starlette.applications import Starlette

from factory import ADMIN_KEY, eventually
from machineshop.front import Front
from machineshop.gateway import headers
from machineshop.gateway.balancer import choose
from machineshop.gateway.proxy import Gateway
from machineshop.models import Deployment
from machineshop.runtime.base import Replica, ReplicaStatus
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.traffic import Traffic
from machineshop.store.database import sqlite_url

PREFIX = "/v1/deployment-request/hello/"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def replica(name: str, port: int = 1, *, ready: float | None = 1.0, draining: bool = False) -> Replica:
    return Replica(
        id=name,
        deployment_id="d",
        revision_id="r",
        image="i",
        status=ReplicaStatus.RUNNING,
        created_at=0,
        port=port,
        ready_since=ready,
        draining=draining,
    )


def test_the_replica_with_the_fewest_requests_is_chosen() -> None:
    a, b = replica("a"), replica("b", ready=2.0)
    assert choose([a, b], {"a": 2, "b": 1}, frozenset()) == b
    assert choose([b, a], {}, frozenset()) == a  # the longest ready one of equals
    assert choose([a, b], {}, frozenset({"a"})) == b


def test_only_ready_replicas_that_do_not_drain_are_chosen() -> None:
    assert choose([replica("a", ready=None), replica("b", draining=True)], {}, frozenset()) is None


def test_keys_and_hop_by_hop_headers_do_not_reach_the_replica() -> None:
    sent = headers.to_replica(
        [
            (b"authorization", b"Bearer secret"),
            (b"cookie", b"secret"),
            (b"host", b"platform"),
            (b"connection", b"keep-alive, X-Once"),
            (b"x-once", b"1"),
            (b"transfer-encoding", b"chunked"),
            (b"x-forwarded-for", b"a lie"),
            (b"accept", b"*/*"),
        ],
        "1.2.3.4",
        "id-1",
    )
    assert sent == [("accept", "*/*"), ("x-forwarded-for", "1.2.3.4"), ("x-request-id", "id-1")]


def test_the_callers_answer_has_our_headers_where_they_are_ours() -> None:
    answered = headers.to_client(
        [(b"Date", b"x"), (b"Server", b"x"), (b"Connection", b"close"), (b"ETag", b"e"), (b"Set-Cookie", b"a=b")],
        200,
        "id-1",
    )
    assert answered == [(b"etag", b"e"), (b"set-cookie", b"a=b"), (b"x-request-id", b"id-1")]


class Replicas:
    """Stands for the runtime: what `observe` gives."""

    def __init__(self) -> None:
        self.seen: list[Replica] = []

    async def observe(self) -> list[Replica]:
        return self.seen


@asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[int]:
    """A replica's server on a free port."""
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener).start()
    try:
        yield listener.getsockname()[1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def recorder(
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A replica that answers every request with these bytes and hangs up: its port, and the heads that it got."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


class Caller:
    """A client of the gateway, and the replicas behind it."""

    def __init__(self, port: int, session: aiohttp.ClientSession, replicas: Replicas, deployment: Deployment) -> None:
        self.port = port
        self.session = session
        self._replicas = replicas
        self._deployment = deployment

    def serve(self, *ports: int) -> None:
        """These are the ready replicas."""
        self._replicas.seen = [
            msgspec.structs.replace(replica(f"r{n}", port, ready=float(n + 1)), deployment_id=self._deployment.id)
            for n, port in enumerate(ports)
        ]

    async def raw(self, line: str, headers: bytes = b"Connection: close", body: bytes = b"") -> bytes:
        """Every byte that comes back for one request until the gateway closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"{line}\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n".encode()
        writer.write(head + headers + b"\r\n\r\n" + body)
        try:
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind of database is enough: the gateway only asks it who calls, and for what."""
    return sqlite_url(tmp_path / "machineshop.db")


@pytest.fixture
async def caller(
    identity: IdentityService, deployments: DeploymentService, deployment: Deployment
) -> AsyncIterator[Caller]:
    replicas = Replicas()
    gateway = Gateway(identity, deployments, replicas, Traffic())
    await gateway.start()
    listener = socket.create_server(("127.0.0.1", 0))
    front = Front(Starlette(routes=gateway.routes()))
    config = uvicorn.Config(front, http="httptools", ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    port = listener.getsockname()[1]
    base, key = f"http://127.0.0.1:{port}{PREFIX}", {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with aiohttp.ClientSession(base, headers=key) as session:
        yield Caller(port, session, replicas, deployment)
    server.should_exit = True
    await serving
    await gateway.close()


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
        async with caller.session.get("events") as answer, asyncio.timeout(10):
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

    async with upstream(count) as port, asyncio.timeout(30):
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
    async with server, asyncio.timeout(10):
        asking = asyncio.create_task(caller.session.post("generate", json={}).__aenter__())
        await reached.wait()
        asking.cancel()
        await ended.wait()


async def test_a_replica_that_is_gone_is_passed_over(caller: Caller) -> None:
    async def fine(_request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = closed.getsockname()[1]
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


async def test_replicas_that_answer_garbage_are_unreachable_rather_than_not_ready(caller: Caller) -> None:
    async with recorder(b"garbage\r\n\r\n") as (port, heads), recorder(b"garbage\r\n\r\n") as (other, more):
        caller.serve(port, other)
        async with caller.session.get("generate") as answer:
            assert answer.status == 502
            assert (await answer.json())["error"]["code"] == "replica_unreachable"
    assert len(heads) == len(more) == 1


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"999 What\r\nContent-Length: 2\r\n\r\nok", "status 999"),
        (b"600 What\r\nContent-Length: 2\r\n\r\nok", "status 600"),
        (b"101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "status 101"),
        (b"200 OK\r\nContent-Length: 2\r\nX-A: a\x01b\r\n\r\nok", "header 'X-A'"),
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


async def test_a_websocket_is_refused_in_words_and_reaches_no_replica(caller: Caller) -> None:
    async with recorder() as (port, heads):
        caller.serve(port)
        got = await caller.raw(f"GET {PREFIX}talk HTTP/1.1", b"Connection: close, Upgrade\r\nUpgrade: WebSocket")
    assert got.startswith(b"HTTP/1.1 400 ")
    assert "WebSocket" in msgspec.json.decode(got.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert not heads


@pytest.mark.parametrize("key", ["", "Bearer wrong"])
async def test_without_a_valid_key_nothing_is_forwarded(caller: Caller, key: str) -> None:
    async with caller.session.get("generate", headers={"Authorization": key}) as answer:
        assert answer.status == 401


async def test_an_unknown_deployment_is_not_found(caller: Caller) -> None:
    async with caller.session.get("../none-such/generate") as answer:
        assert answer.status == 404
