"""WebSockets through the gateway: a tunnel, of which it reads nothing."""

import asyncio
import base64
import os
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from factory import eventually
from gateway.caller import PREFIX, Caller, recorder, upstream
from machineshop.config import GatewayLimits
from machineshop.models import DEFAULT_SLUG, Scope
from machineshop.services.identity import IdentityService

ASK = b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
KEY = base64.b64encode(os.urandom(16))


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Says everything back, and first what it was asked for."""
    socket = web.WebSocketResponse(protocols=["chat"], max_msg_size=0)
    await socket.prepare(request)
    await socket.send_json({"path": request.raw_path, "key": request.headers.get("Authorization")})
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def test_messages_pass_both_ways(caller: Caller) -> None:
    async with upstream(echo) as port, asyncio.timeout(60):
        caller.serve(port)
        async with caller.session.ws_connect("talk%2Fhere?a=b", protocols=["chat"], max_msg_size=0) as socket:
            assert socket.protocol == "chat"
            assert await socket.receive_json() == {"path": "/talk%2Fhere?a=b", "key": None}
            for text in ("one", "two" * 1000):
                await socket.send_str(text)
                assert await socket.receive_str() == text
            large = os.urandom(5_000_000)
            await socket.send_bytes(large)
            assert await socket.receive_bytes() == large
            await socket.close(code=4001)
            assert socket.close_code is not None
        await eventually(lambda: caller.in_flight() == 0)


async def test_a_connection_that_has_had_plain_requests_becomes_a_tunnel(caller: Caller) -> None:
    async with upstream(echo) as port, asyncio.timeout(60):
        caller.serve(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
        for _ in range(2):
            writer.write(caller.head("GET /v1/nothing HTTP/1.1") + b"\r\n")
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.write(caller.head(f"GET {PREFIX}talk HTTP/1.1") + ASK + KEY + b"\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(b"\x88\x80\0\0\0\0")  # a close, which is answered
        assert b"path" in await reader.read()
        writer.close()
        await eventually(lambda: caller.in_flight() == 0)


@pytest.mark.parametrize("replica_first", [True, False])
async def test_a_tunnel_whose_both_sides_say_no_more_is_closed(caller: Caller, replica_first: bool) -> None:
    ends: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await ends.put((reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        caller.serve(server.sockets[0].getsockname()[1])
        near = await asyncio.open_connection("127.0.0.1", caller.port)
        near[1].write(caller.head(f"GET {PREFIX}talk HTTP/1.1") + ASK + KEY + b"\r\n\r\n")
        assert (await near[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        far = await ends.get()
        assert caller.in_flight() == 1
        sockets = open_sockets()
        first, second = (far, near) if replica_first else (near, far)
        first[1].write(b"last word")
        first[1].write_eof()
        assert await second[0].read() == b"last word"
        second[1].write(b"x" * 1_000_000)  # it may still speak, and all of that arrives
        second[1].write_eof()
        assert len(await first[0].read()) == 1_000_000
        # Neither the caller nor the replica has closed its own end yet.
        await eventually(lambda: caller.in_flight() == 0 and open_sockets() == sockets - 2)
        for _, writer in (near, far):
            writer.close()


def open_sockets() -> int:
    """How many descriptors of this process are sockets."""
    return sum(entry.is_socket() for entry in Path("/dev/fd").iterdir())


async def test_a_replica_that_closes_closes_the_callers_side(caller: Caller) -> None:
    async def short(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=4002)
        return socket

    async with upstream(short) as port, asyncio.timeout(60):
        caller.serve(port)
        async with caller.session.ws_connect("talk") as socket:
            assert (await socket.receive()).type in {WSMsgType.CLOSE, WSMsgType.CLOSED}
            assert socket.close_code == 4002


async def test_a_tunnel_ends_with_the_key_of_its_caller(caller: Caller, identity: IdentityService) -> None:
    key, text = await identity.create_key(DEFAULT_SLUG, "revoked", Scope.DEVELOPER)
    async with upstream(echo) as port, asyncio.timeout(60):
        caller.serve(port)
        headers = {"Authorization": f"Bearer {text}"}
        async with caller.session.ws_connect("talk", headers=headers) as socket:
            await socket.receive_json()
            await identity.revoke_key(key.id)
            assert (await socket.receive()).type in {WSMsgType.CLOSED, WSMsgType.CLOSE, WSMsgType.ERROR}


async def test_a_caller_that_is_cut_off_ends_the_replicas_side(caller: Caller) -> None:
    ended = asyncio.Event()

    async def wait(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        ended.set()
        return socket

    async with upstream(wait) as port, asyncio.timeout(60):
        caller.serve(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
        writer.write(caller.head(f"GET {PREFIX}talk HTTP/1.1") + ASK + KEY + b"\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        writer.transport.abort()
        await ended.wait()


async def test_a_refusal_is_passed_on_and_ends_the_connection(caller: Caller) -> None:
    async with recorder(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno") as (port, heads):
        caller.serve(port)
        got = await caller.raw(f"GET {PREFIX}talk HTTP/1.1", ASK + KEY)
    assert got.startswith(b"HTTP/1.1 403 ")
    assert got.endswith(b"\r\n\r\nno")
    assert b"\r\nconnection: close\r\n" in got
    assert b"upgrade: websocket\r\n" in heads[0]


async def test_what_is_said_before_the_answer_reaches_the_replica_after_it(caller: Caller) -> None:
    said: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello ")
        said.append(await reader.readexactly(5))
        writer.write(said[0])
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        caller.serve(server.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", caller.port)
        writer.write(caller.head(f"GET {PREFIX}talk HTTP/1.1") + ASK + KEY + b"\r\n\r\nearly")
        async with asyncio.timeout(60):
            head = await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(11) == b"hello early"
        writer.close()
    assert head.startswith(b"HTTP/1.1 101 ")
    assert said == [b"early"]


async def test_without_a_key_there_is_no_tunnel(caller: Caller) -> None:
    async with upstream(echo) as port:
        caller.serve(port)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await caller.session.ws_connect("talk", headers={"Authorization": "Bearer wrong"})
    assert refused.value.status == 401


async def test_a_request_for_a_websocket_with_a_body_is_refused(caller: Caller) -> None:
    async with recorder() as (port, heads):
        caller.serve(port)
        got = await caller.raw(f"GET {PREFIX}talk HTTP/1.1", ASK + KEY + b"\r\nContent-Length: 3", b"abc")
    assert got.startswith(b"HTTP/1.1 400 ")
    assert not heads


async def test_another_protocol_than_websockets_is_answered_as_plain_http(caller: Caller) -> None:
    async with recorder() as (port, heads):
        caller.serve(port)
        got = await caller.raw(
            f"GET {PREFIX}page HTTP/1.1", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA"
        )
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.endswith(b"\r\n\r\nok")
    assert b"upgrade" not in heads[0]
    assert b"http2" not in heads[0]


class TestSilence:
    @pytest.fixture
    def limits(self) -> GatewayLimits:
        return GatewayLimits(silence_seconds=1.0)

    async def test_a_tunnel_in_which_nobody_speaks_is_closed(self, caller: Caller) -> None:
        async with upstream(echo) as port, asyncio.timeout(60):
            caller.serve(port)
            async with caller.session.ws_connect("talk") as socket:
                await socket.receive_json()
                assert (await socket.receive()).type in {WSMsgType.CLOSED, WSMsgType.CLOSE, WSMsgType.ERROR}
