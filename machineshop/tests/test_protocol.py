"""What a connection may send before its key is looked at, over real connections."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from machineshop.protocol import BoundedHttpProtocol
from protocol_server import END, START, Server, serve


class Hasty(BoundedHttpProtocol):
    head_timeout_seconds = 0.3
    linger_seconds = 0.1
    stalled_seconds = 1.0


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture(scope="module")
def shared_hasty() -> Iterator[Server]:
    with serve(Hasty, timeout_keep_alive=2) as server:
        yield server


@pytest.fixture
async def server(shared_server: Server) -> AsyncIterator[Server]:
    yield shared_server
    shared_server.hang_up()


@pytest.fixture
async def hasty(shared_hasty: Server) -> AsyncIterator[Server]:
    """A server with little patience."""
    yield shared_hasty
    shared_hasty.hang_up()


@pytest.mark.parametrize(
    ("head", "refusal"),
    [
        (START + b"X-A: " + b"a" * 70_000, (431, "head_too_large")),
        (START + b"X-A: " + b"a" * 70_000 + END, (431, "head_too_large")),
        (START + b"X-A: a\r\n" * 9_000, (431, "head_too_large")),
        (START + b"X-A: a\r\n" * 201, (431, "head_too_large")),
        (START + b"X-A: a\r\n" * 200 + b"\r\n", (431, "head_too_large")),
        (b"GET /" + b"a" * 17_000, (414, "url_too_long")),
        (b"GET /" + b"a" * 17_000 + b" HTTP/1.1" + END, (414, "url_too_long")),
        (b"NONSENSE / HTTP/1.1" + END, (400, "malformed_request")),
        (b"GET / HTTP/1.1\r\nX-A: a" + END, (400, "malformed_request")),
        (START + b"host: y" + END, (400, "malformed_request")),
        (b"\x16\x03\x01\x00\x05hello", (400, "malformed_request")),
    ],
)
async def test_a_head_beyond_a_limit_is_refused(server: Server, head: bytes, refusal: tuple[int, str]) -> None:
    caller = await server.call(head)
    assert await caller.refusal() == refusal


@pytest.mark.parametrize(
    "head",
    [
        START + b"X-A: " + b"a" * 65_000 + END,
        START + b"X-A: a\r\n" * 199 + b"\r\n",
        b"GET /" + b"a" * 16_000 + b" HTTP/1.1\r\nHost: x" + END,
        b"GET / HTTP/1.1\r\nHost:" + END,
        b"GET / HTTP/1.0" + END,
    ],
)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_head_within_the_limits_is_served(server: Server, head: bytes, pieces: int) -> None:
    caller = await server.call()
    for start in range(0, len(head), size := len(head) // pieces + 1):
        caller.send(head[start : start + size])
        await asyncio.sleep(0.001)
    assert (await caller.answer())[0] == 200


async def test_an_endless_header_ends_the_connection_and_delays_nobody(server: Server) -> None:
    endless = await server.call(START + b"X-A: ")
    other = await server.call()

    async def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                endless.send(b"a" * (1 << 20))
                await endless.writer.drain()

    flooding = asyncio.create_task(flood())
    while not flooding.done():
        async with asyncio.timeout(60):
            other.send(START + b"\r\n")
            assert (await other.answer())[0] == 200


async def test_an_endless_trailer_is_refused(server: Server) -> None:
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    caller = await server.call(head % b"read" + b"X-A: ")
    caller.send(b"a" * 400_000)
    assert await caller.refusal() == (431, "head_too_large")
    answered = await server.call(head % b"deaf")
    assert (await answered.answer())[0] == 200
    answered.send(b"X-A: " + b"a" * 400_000)
    assert await answered.refusal() == (431, "head_too_large")


async def test_who_takes_nothing_of_an_answer_is_let_go_and_who_is_slow_is_not(hasty: Server) -> None:
    hasty.application.told.clear()
    with socket.create_connection(hasty.socket.getsockname()) as slow:
        slow.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        slow.settimeout(60)
        for _ in range(12):  # longer than the bound in all
            assert await asyncio.to_thread(_take, slow, 8 << 20) >= 8 << 20
            assert not await asyncio.to_thread(hasty.application.told.wait, 0.1)
        assert await asyncio.to_thread(hasty.application.told.wait, 60), "it takes nothing any more"


def _take(connection: socket.socket, size: int) -> int:
    """Read so many bytes; returns how many came."""
    taken = 0
    while taken < size and (piece := connection.recv(1 << 20)):
        taken += len(piece)
    return taken


async def test_a_slow_head_is_refused(hasty: Server) -> None:
    caller = await hasty.call(b"GET /heal")
    assert await caller.refusal() == (408, "head_too_slow")


async def test_a_head_that_drips_gets_no_more_time(hasty: Server) -> None:
    caller = await hasty.call(START)

    async def drip() -> None:
        while True:
            caller.send(b"X-A: a\r\n")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert await caller.refusal() == (408, "head_too_slow")
    dripping.cancel()


@pytest.mark.parametrize("data", [b"", b"\r\n"])
async def test_a_connection_that_asks_for_nothing_ends(hasty: Server, data: bytes) -> None:
    caller = await hasty.call(data)
    assert await caller.rest() == b""


async def test_a_slow_second_head_is_refused(hasty: Server) -> None:
    caller = await hasty.call(START + b"\r\n")
    assert (await caller.answer())[0] == 200
    caller.send(START)
    assert await caller.refusal() == (408, "head_too_slow")


async def test_half_a_request_behind_another_is_refused(hasty: Server) -> None:
    caller = await hasty.call(START + b"\r\n" + START)
    assert (await caller.answer())[0] == 200
    assert await caller.refusal() == (408, "head_too_slow")


@pytest.mark.parametrize("data", [b"", b"\r\n"])
async def test_between_requests_a_connection_may_idle_for_the_keep_alive_time(hasty: Server, data: bytes) -> None:
    caller = await hasty.call(START + b"\r\n")
    assert (await caller.answer())[0] == 200
    await asyncio.sleep(3 * Hasty.head_timeout_seconds)
    caller.send(data + START + b"\r\n")
    assert (await caller.answer())[0] == 200
    caller.send(data)
    before = asyncio.get_running_loop().time()
    assert await caller.rest() == b""
    assert asyncio.get_running_loop().time() - before > 0.5


@pytest.mark.parametrize("rest", [b"a", b"a" * 10])
async def test_the_rest_of_a_body_already_answered_holds_no_connection_for_long(hasty: Server, rest: bytes) -> None:
    caller = await hasty.call(b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
    assert (await caller.answer())[0] == 200
    caller.send(rest)
    assert await caller.rest() == b""


async def test_a_request_may_take_longer_than_its_head(hasty: Server) -> None:
    waiting = await hasty.call(b"GET /wait HTTP/1.1\r\nHost: x" + END)
    upload = await hasty.call(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
    chunked = await hasty.call(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1")
    await asyncio.sleep(3 * Hasty.head_timeout_seconds)
    hasty.go_on()
    upload.send(b"a")
    chunked.send(b"\r\na\r\n0" + END)
    assert [(await caller.answer())[0] for caller in (waiting, upload, chunked)] == [200, 200, 200]


async def test_a_large_head_behind_a_body_is_measured_without_the_body(server: Server) -> None:
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n" + b"a" * 90_000
    caller = await server.call(post + START + b"X-A: " + b"a" * 60_000 + END + post + START + b"X-A: ")
    assert [(await caller.answer())[1]["size"] for _ in range(3)] == [90_000, 0, 90_000]
    caller.send(b"a" * 400_000 + END)
    assert await caller.refusal() == (431, "head_too_large")


async def test_bodies_do_not_count(server: Server) -> None:
    size = 5_000_000
    caller = await server.call(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
    assert await caller.answer() == (200, {"path": "/", "size": size})
    chunk = b"%x\r\n" % 1000 + b"a" * 1000 + b"\r\n"
    caller.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 1000 + b"0\r\nX-Sum: 1" + END
    )
    assert await caller.answer() == (200, {"path": "/", "size": 1_000_000})
    caller.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 50_000 + b"0" + END
    )
    assert await caller.answer() == (200, {"path": "/", "size": 50_000})
    caller.send(b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
    assert await caller.answer() == (200, {"path": "/deaf", "size": 0})
    caller.send(START + b"\r\n")
    assert (await caller.answer())[0] == 200


async def test_a_body_that_waits_to_be_asked_for(server: Server) -> None:
    caller = await server.call(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue" + END)
    assert await caller.answer() == (100, None)
    caller.send(b"abc")
    assert await caller.answer() == (200, {"path": "/", "size": 3})


async def test_a_malformed_body_is_refused(server: Server) -> None:
    caller = await server.call(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")
    assert await caller.refusal() == (400, "malformed_request")
