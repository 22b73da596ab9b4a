"""The relay: what needs the replicas is answered by the server that has them, wherever it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from yarl import URL

from factory import eventually
from machineshop.gateway.relay import Relay
from machineshop.protocol import BoundedHttpProtocol

Handler = Callable[[Request], Awaitable[Response]]


class Lease:
    """Says what a test wants."""

    def __init__(self) -> None:
        self.held = False
        self.holder_url: str | None = None
        self._moved = asyncio.Event()

    async def changed(self) -> None:
        await self._moved.wait()

    def move(self, holder_url: str | None) -> None:
        self.holder_url = holder_url
        self._moved.set()
        self._moved = asyncio.Event()


@asynccontextmanager
async def serving(application: Starlette) -> AsyncIterator[str]:
    config = uvicorn.Config(
        application,
        port=0,
        http=BoundedHttpProtocol,
        ws="none",
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


class Servers:
    """A server with the replicas, another one without, and a client of that one."""

    def __init__(self, lease: Lease, url: str, holder_url: str, session: aiohttp.ClientSession) -> None:
        self.lease = lease
        self.url = url
        self.holder_url = holder_url
        self.session = session


async def holder_answers(request: Request) -> Response:
    body = await request.body()
    seen = {
        "method": request.method,
        "path": request.scope["raw_path"].decode(),
        "query": request.url.query,
        "key": request.headers.get("authorization"),
        "relayed_by": request.headers.get("x-machineshop-relayed-by"),
        "body": body.decode(),
    }
    return JSONResponse(seen, 418, {"x-own": "1"})


async def endless(_request: Request) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        yield b"first\n"
        await asyncio.Event().wait()

    return StreamingResponse(lines())


async def silent(_request: Request) -> Response:
    await asyncio.Event().wait()
    return Response()


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    lease = Lease()
    relay = Relay(lease, "server-2")

    async def own(_request: Request) -> Response:
        return JSONResponse("own")

    paths = {"/v1/endless": endless, "/v1/silent": silent, "/v1/{rest:path}": holder_answers}
    methods = ["GET", "POST"]
    holder = Starlette(routes=[Route(path, handler, methods=methods) for path, handler in paths.items()])
    follower = Starlette(routes=relay.guard([Route("/v1/{rest:path}", own, methods=methods)]))
    async with serving(holder) as holder_url, serving(follower) as url, aiohttp.ClientSession() as session:
        lease.holder_url = holder_url
        yield Servers(lease, url, holder_url, session)
    relay.close()


async def test_a_request_reaches_the_holder_as_it_came(servers: Servers) -> None:
    headers = {"Authorization": "Bearer secret", "X-Machineshop-Relayed": "kept"}
    url = URL(f"{servers.url}/v1/a%20b/c?d=e%2F", encoded=True)
    async with servers.session.post(url, data=b"body", headers=headers) as answer:
        seen = json.loads(await answer.read())
        assert (answer.status, answer.headers["x-own"]) == (418, "1")
    assert seen == {
        "method": "POST",
        "path": "/v1/a%20b/c",
        "query": "d=e%2F",
        "key": "Bearer secret",
        "relayed_by": "server-2",
        "body": "body",
    }


async def test_the_holder_answers_for_itself(servers: Servers) -> None:
    servers.lease.held = True
    async with servers.session.get(f"{servers.url}/v1/x") as answer:
        assert await answer.json() == "own"


async def test_what_was_passed_on_once_is_not_passed_on_again(servers: Servers) -> None:
    headers = {"X-Machineshop-Relayed-By": "server-1"}
    async with servers.session.get(f"{servers.url}/v1/x", headers=headers) as answer:
        await says_try_again(answer)


async def test_without_a_holder_the_caller_is_told_to_try_again(servers: Servers) -> None:
    servers.lease.holder_url = None
    async with servers.session.get(f"{servers.url}/v1/x") as answer:
        await says_try_again(answer)


async def test_a_holder_that_cannot_be_reached_is_said_to_be_so(servers: Servers) -> None:
    servers.lease.holder_url = "http://127.0.0.1:1"
    async with servers.session.get(f"{servers.url}/v1/x") as answer:
        assert "http://127.0.0.1:1" in await says_try_again(answer)


async def test_nobody_waits_for_a_holder_that_has_lost_its_lease(servers: Servers) -> None:
    asking = asyncio.ensure_future(servers.session.get(f"{servers.url}/v1/silent"))
    await asyncio.sleep(0.1)
    assert not asking.done()
    servers.lease.move("http://127.0.0.1:1")
    async with await asyncio.wait_for(asking, 60) as answer:
        assert "another server has taken over" in await says_try_again(answer)


async def test_a_stream_is_passed_on_as_it_comes_and_cut_with_the_lease(servers: Servers) -> None:
    async with servers.session.get(f"{servers.url}/v1/endless") as answer:
        assert await asyncio.wait_for(answer.content.readline(), 60) == b"first\n"
        servers.lease.move(None)
        with pytest.raises(aiohttp.ClientPayloadError):
            await asyncio.wait_for(answer.content.readline(), 60)


async def says_try_again(answer: aiohttp.ClientResponse) -> str:
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    error = (await answer.json())["error"]
    assert error["code"] == "holder_away"
    return str(error["message"])


async def test_a_websocket_is_carried_to_the_holder(servers: Servers) -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while said := await reader.read(1024):
            writer.write(said)
        writer.close()

    holder = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with holder, asyncio.timeout(60):
        servers.lease.holder_url = f"http://127.0.0.1:{holder.sockets[0].getsockname()[1]}"
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(servers.url).port)
        writer.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n")
        writer.write(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
    assert b"authorization: Bearer secret\r\n" in heads[0]
    assert b"x-machineshop-relayed-by: server-2\r\n" in heads[0]
