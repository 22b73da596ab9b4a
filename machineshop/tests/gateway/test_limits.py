"""How much the gateway takes of whom: bodies, slow callers, and what one key may have under way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from aiohttp import web

from gateway.caller import PREFIX, Caller, recorder, upstream
from machineshop.config import GatewayLimits
from machineshop.errors import TooManyRequests
from machineshop.gateway.limits import KEYS_REMEMBERED, KeyLimiter

KIB = 1024


def test_a_key_has_no_more_under_way_than_it_may() -> None:
    keys = KeyLimiter(GatewayLimits(key_concurrency=2))
    keys.enter("a", 0)
    keys.enter("a", 0)
    with pytest.raises(TooManyRequests, match="2 requests under way"):
        keys.enter("a", 0)
    keys.enter("b", 0)
    keys.leave("a")
    keys.enter("a", 0)


def test_a_key_begins_no_more_a_second_than_it_may() -> None:
    keys = KeyLimiter(GatewayLimits(key_rate=10))
    for _ in range(10):
        keys.enter("a", 100.0)
    with pytest.raises(TooManyRequests, match="10 requests a second"):
        keys.enter("a", 100.0)
    keys.enter("b", 100.0)
    keys.enter("a", 100.11)
    with pytest.raises(TooManyRequests):
        keys.enter("a", 100.12)
    for _ in range(10):
        keys.enter("a", 200.0)  # nobody saves up more than a second


def test_a_rate_below_one_a_second_lets_the_first_request_pass() -> None:
    keys = KeyLimiter(GatewayLimits(key_rate=0.1))
    keys.enter("a", 0.0)
    with pytest.raises(TooManyRequests):
        keys.enter("a", 5.0)
    keys.enter("a", 10.1)


def test_keys_that_asked_long_ago_are_forgotten() -> None:
    keys = KeyLimiter(GatewayLimits(key_rate=1))
    for number in range(3 * KEYS_REMEMBERED):
        keys.enter(f"key-{number}", float(number))
    assert keys.remembered <= KEYS_REMEMBERED


async def sizes(request: web.Request) -> web.Response:
    return web.Response(text=str(len(await request.read())))


class TestBodies:
    @pytest.fixture
    def limits(self) -> GatewayLimits:
        return GatewayLimits(body_bytes=100 * KIB, body_silence_seconds=1.0, hold_seconds=1.0)

    async def test_a_body_that_says_it_is_too_long_is_not_begun_with(self, caller: Caller) -> None:
        async with recorder() as (port, heads):
            caller.serve(port)
            async with caller.session.post("x", data=b"x" * (100 * KIB + 1)) as answer:
                assert answer.status == 413
        assert not heads

    async def test_a_body_that_turns_out_too_long_is_cut_off(self, caller: Caller) -> None:
        async with upstream(sizes) as port:
            caller.serve(port)
            async with caller.session.post("x", data=_parts(1000)) as answer:
                assert answer.status == 413
                assert "102400 bytes" in (await answer.json())["error"]["message"]
            async with caller.session.post("x", data=_parts(99)) as answer:
                assert await answer.text() == str(99 * KIB)

    async def test_a_body_that_does_not_come_is_not_waited_for(self, caller: Caller) -> None:
        async with upstream(sizes) as port:
            caller.serve(port)
            for begun in (b"", b"half"):
                got = await caller.raw(f"POST {PREFIX}x HTTP/1.1", b"Connection: close\r\nContent-Length: 8", begun)
                assert got.startswith(b"HTTP/1.1 408 ")
                assert b"body_too_slow" in got


async def _parts(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * KIB
        await asyncio.sleep(0)


class TestKeys:
    @pytest.fixture
    def limits(self) -> GatewayLimits:
        return GatewayLimits(key_concurrency=2)

    async def test_one_request_too_many_is_told_when_to_come_back(self, caller: Caller) -> None:
        go_on = asyncio.Event()

        async def wait(_request: web.Request) -> web.Response:
            await go_on.wait()
            return web.Response()

        async with upstream(wait) as port, asyncio.timeout(60):
            caller.serve(port)
            asking = [asyncio.ensure_future(caller.session.get("x")) for _ in range(3)]
            (refused,), _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            async with refused.result() as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
                assert (await answer.json())["error"]["type"] == "rate_limit_error"
            go_on.set()
            answers = [await task for task in asking if task is not refused]
            assert [answer.status for answer in answers] == [200, 200]
            for each in answers:
                each.release()


class TestSilence:
    @pytest.fixture
    def limits(self) -> GatewayLimits:
        return GatewayLimits(silence_seconds=1.0)

    @pytest.mark.parametrize(
        "said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"], ids=["nothing", "half"]
    )
    async def test_a_replica_that_falls_silent_is_given_up(self, caller: Caller, said: bytes) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(said)
            with suppress(ConnectionError):
                while await reader.read(1024):
                    pass
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            caller.serve(server.sockets[0].getsockname()[1])
            got = await caller.raw(
                f"GET {PREFIX}x HTTP/1.1", b"Connection: keep-alive" if said else b"Connection: close"
            )
        if said:
            assert got.endswith(b"\r\n\r\nhalf")  # and the connection was cut
        else:
            assert got.startswith(b"HTTP/1.1 504 ")
            assert b"replica_silent" in got
