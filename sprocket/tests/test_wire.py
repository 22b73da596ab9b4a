"""The connections to the platform, against servers on real sockets that behave as no server should."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sprocket import wire as wire_module
from sprocket.answer import Answer
from sprocket.errors import PlatformAwayError
from sprocket.wire import Wire

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
BOUND_SECONDS = 60.0


@dataclass
class Visit:
    """One connection, seen from the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[bytes] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def read_request(self) -> bool:
        """Read a request; False where the client has gone."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        body = b""
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length: "):
                body = await self.reader.readexactly(int(line.partition(b": ")[2]))
        self.requests.append(head + body)
        return True

    async def answer(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the client has hung up."""
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(self.reader.read(), BOUND_SECONDS) == b""


Behaviour = Callable[[Visit], Awaitable[None]]


@dataclass
class Server:
    """Gives each connection the next behaviour; the last one is for all that follow."""

    behaviours: list[Behaviour]
    visits: list[Visit] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(reader, writer)
        self.visits.append(visit)
        behaviour = self.behaviours[min(len(self.visits), len(self.behaviours)) - 1]
        try:
            await behaviour(visit)
            visit.over.set()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @property
    def requests(self) -> list[int]:
        """The number of requests, by connection."""
        return [len(visit.requests) for visit in self.visits]


@asynccontextmanager
async def serving(
    *behaviours: Behaviour, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[Server, Wire]]:
    server = Server(list(behaviours))
    listener = await asyncio.start_server(server.serve, host, 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    wire = Wire(f"{'https' if tls else 'http'}://{shown}:{server.port}/base", {"Authorization": "Bearer k"})
    try:
        yield server, wire
    finally:
        await wire.close()
        listener.close()
        for visit in server.visits:
            visit.writer.close()


async def polite(visit: Visit) -> None:
    while await visit.read_request():
        await visit.answer(HELLO)


def saying(data: bytes) -> Behaviour:
    """Answer the first request with this, and close."""

    async def behave(visit: Visit) -> None:
        await visit.read_request()
        await visit.answer(data)

    return behave


async def silent(visit: Visit) -> None:
    await visit.read_request()
    await visit.gone()


def whole(answer: Answer) -> tuple[int, bytes]:
    return answer.status, answer.body


async def get(wire: Wire, timeout_seconds: float = BOUND_SECONDS, **kwargs: Any) -> tuple[int, bytes]:
    options = {"headers": lambda: {"x-a": "b"}, "read": whole, **kwargs}
    result: tuple[int, bytes] = await wire.request("GET", "/path?q=1", timeout_seconds=timeout_seconds, **options)
    return result


async def post(wire: Wire, body: bytes) -> tuple[int, bytes]:
    return await wire.request("POST", "/path", body, headers=dict, timeout_seconds=BOUND_SECONDS, read=whole)


async def until(condition: Callable[[], object]) -> None:
    ends_at = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < ends_at
        await asyncio.sleep(0.001)


async def test_requests_follow_one_another_on_one_connection() -> None:
    async with serving(polite) as (server, wire):
        for _ in range(3):
            assert await get(wire) == (200, b"hello")
            assert await post(wire, b"{}") == (200, b"hello")
        assert server.requests == [6]
        host = f"Host: 127.0.0.1:{server.port}\r\nAccept-Encoding: identity\r\nAuthorization: Bearer k\r\n"
        assert server.visits[0].requests[:2] == [
            f"GET /base/path?q=1 HTTP/1.1\r\n{host}x-a: b\r\n\r\n".encode(),
            f"POST /base/path HTTP/1.1\r\n{host}Content-Length: 2\r\n\r\n{{}}".encode(),
        ]


async def test_requests_at_the_same_time_have_a_connection_each_and_two_are_kept() -> None:
    arrived = asyncio.Semaphore(0)
    go_on = asyncio.Event()

    async def together(visit: Visit) -> None:
        while await visit.read_request():
            arrived.release()
            await go_on.wait()
            await visit.answer(HELLO)

    async with serving(together) as (server, wire):
        running = [asyncio.create_task(get(wire)) for _ in range(3)]
        for _ in range(3):
            await asyncio.wait_for(arrived.acquire(), BOUND_SECONDS)
        go_on.set()
        assert await asyncio.gather(*running) == [(200, b"hello")] * 3
        await asyncio.gather(get(wire), get(wire))
        assert sorted(server.requests) == [1, 2, 2]


async def test_a_connection_that_the_server_has_closed_is_replaced() -> None:
    async with serving(saying(HELLO), polite) as (server, wire):
        await get(wire)
        await until(lambda: not wire._kept[0].is_open)
        assert await get(wire) == (200, b"hello")
        assert server.requests == [1, 1]


async def test_a_request_that_a_kept_connection_swallows_is_sent_once_more() -> None:
    async def close_at_the_second(visit: Visit) -> None:
        await visit.read_request()
        await visit.answer(HELLO)
        await visit.read_request()

    async with serving(close_at_the_second) as (server, wire):
        await get(wire)
        assert await get(wire) == (200, b"hello")
        assert server.requests == [2, 1]
        assert await post(wire, b"x") == (200, b"hello")
        assert server.requests == [2, 2, 1]


async def test_a_new_connection_that_dies_is_not_tried_again() -> None:
    async with serving(saying(b"")) as (server, wire):
        with pytest.raises(PlatformAwayError, match="the connection was closed"):
            await get(wire)
        assert server.requests == [1]


async def test_a_connection_that_was_quiet_for_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(polite) as (server, wire):
        await get(wire)
        monkeypatch.setattr(wire_module, "KEPT_SECONDS", 0.0)
        await get(wire)
        assert server.requests == [1, 1]


async def test_bytes_that_nobody_asked_for_end_the_connection() -> None:
    async def talkative(visit: Visit) -> None:
        await visit.read_request()
        await visit.answer(HELLO)
        await visit.answer(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await visit.gone()

    async with serving(talkative) as (_, wire):
        assert await get(wire) == (200, b"hello")
        await until(lambda: not any(connection.is_open for connection in wire._kept))
        assert await get(wire) == (200, b"hello")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nConte",
    ],
)
async def test_a_server_that_dies_in_the_middle_of_an_answer_is_away(data: bytes) -> None:
    async with serving(polite, saying(data)) as (server, wire):
        await get(wire)
        server.visits[0].writer.close()
        await until(lambda: not wire._kept[0].is_open)
        with pytest.raises(PlatformAwayError, match="the connection was closed"):
            await get(wire)
        assert server.requests == [1, 1]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "not understood"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "larger than"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, "head is too large"),
    ],
)
async def test_what_is_no_answer_ends_the_connection(data: bytes, complaint: str) -> None:
    async def behave(visit: Visit) -> None:
        await visit.read_request()
        await visit.answer(data)
        await visit.gone()

    async with serving(behave) as (_, wire):
        with pytest.raises(PlatformAwayError, match=complaint):
            await get(wire)
        assert wire._kept == []


async def test_chunks_and_large_bodies_both_ways() -> None:
    body = bytes(range(256)) * 40_000

    async def echo(visit: Visit) -> None:
        while await visit.read_request():
            data = visit.requests[-1].partition(b"\r\n\r\n")[2]
            await visit.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(data), 100_000):
                piece = data[at : at + 100_000]
                await visit.answer(b"%x\r\n%s\r\n" % (len(piece), piece))
            await visit.answer(b"0\r\n\r\n")

    async with serving(echo) as (server, wire):
        assert await post(wire, body) == (200, body)
        assert await post(wire, b"small") == (200, b"small")
        assert server.requests == [2]


async def test_an_answer_before_the_request_has_been_read_ends_the_connection() -> None:
    async def refuse(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await visit.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.wait_for(wire_is_done.wait(), BOUND_SECONDS)

    wire_is_done = asyncio.Event()
    async with serving(refuse) as (_, wire):
        assert (await post(wire, b"x" * 30_000_000))[0] == 413
        assert wire._kept == []
        wire_is_done.set()


async def test_a_body_may_end_with_the_connection() -> None:
    async with serving(saying(b"HTTP/1.1 200 OK\r\n\r\nhello")) as (_, wire):
        assert await get(wire) == (200, b"hello")
        assert wire._kept == []


async def test_a_slow_answer_times_out_and_is_not_asked_for_again() -> None:
    async def dawdle(visit: Visit) -> None:
        await visit.read_request()
        await visit.answer(HELLO[:-1])
        await visit.gone()

    for behaviour in (silent, dawdle):
        async with serving(behaviour) as (server, wire):
            with pytest.raises(PlatformAwayError, match="timed out"):
                await get(wire, timeout_seconds=0.5)
            assert server.requests == [1]


async def test_connecting_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "CONNECT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        # TLS to a server that accepts and says nothing.
        wire = Wire(f"https://127.0.0.1:{deaf.getsockname()[1]}", {})
        with pytest.raises(PlatformAwayError, match=r"cannot connect to 127.0.0.1:\d+ \(timed out\)"):
            await get(wire)
        await wire.close()


async def test_a_refused_connection_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(PlatformAwayError, match=f"cannot connect to {host}:{port}"):
            await get(Wire(f"http://{host}:{port}", {}))


async def test_an_aborted_request_drops_its_connection_at_once() -> None:
    async with serving(silent) as (server, wire):
        asking = asyncio.create_task(get(wire))
        await until(lambda: server.requests == [1])
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.visits[0].over.wait(), BOUND_SECONDS)
        assert wire._kept == []


async def test_connecting_can_be_aborted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.settimeout(BOUND_SECONDS)
        wire = Wire(f"https://127.0.0.1:{deaf.getsockname()[1]}", {})
        asking = asyncio.create_task(get(wire))
        connection, _ = await asyncio.get_running_loop().run_in_executor(None, deaf.accept)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with connection:
            connection.settimeout(BOUND_SECONDS)

            def drain() -> None:
                while connection.recv(65536):
                    pass

            await asyncio.get_running_loop().run_in_executor(None, drain)


async def test_closing_ends_what_is_under_way() -> None:
    async with serving(silent) as (server, wire):
        asking = asyncio.create_task(get(wire))
        await until(lambda: server.requests == [1])
        await wire.close()
        with pytest.raises(PlatformAwayError):
            await asking


async def test_the_first_byte_and_the_whole_answer_are_told_in_time() -> None:
    go_on = asyncio.Event()
    events: list[str] = []

    async def in_two_parts(visit: Visit) -> None:
        await visit.read_request()
        await visit.answer(HELLO[:1])
        await go_on.wait()
        await visit.answer(HELLO[1:])
        await visit.gone()

    def read(answer: Answer) -> tuple[int, bytes]:
        events.append("read")
        return whole(answer)

    async with serving(in_two_parts) as (_, wire):
        asking = asyncio.create_task(get(wire, read=read, on_arrival=lambda: events.append("arrival")))
        await until(lambda: events)
        assert events == ["arrival"]
        go_on.set()
        assert await asking == (200, b"hello")
        assert events == ["arrival", "read"]


async def test_what_reading_raises_is_raised_and_the_connection_is_kept() -> None:
    def read(_: Answer) -> tuple[int, bytes]:
        raise KeyError("nothing")

    async with serving(polite) as (server, wire):
        with pytest.raises(KeyError):
            await get(wire, read=read)
        assert await get(wire) == (200, b"hello")
        assert server.requests == [2]


async def test_tls_trusts_what_ssl_cert_file_names(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(polite, tls=tls) as (_, wire):
        with pytest.raises(PlatformAwayError, match="self-signed certificate; SSL_CERT_FILE names"):
            await get(wire)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with serving(polite, tls=tls) as (server, wire):
        assert await get(wire) == (200, b"hello")
        assert await post(wire, b"x" * 3_000_000) == (200, b"hello")
        assert server.requests == [2]
    async with serving(polite, silent, tls=tls) as (server, wire):
        await get(wire)
        server.visits[0].writer.close()
        await until(lambda: not wire._kept[0].is_open)
        asking = asyncio.create_task(get(wire))
        await until(lambda: server.requests == [1, 1])
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.visits[1].over.wait(), BOUND_SECONDS)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_ipv6() -> None:
    async with serving(polite, host="::1") as (server, wire):
        assert await get(wire) == (200, b"hello")
        assert f"Host: [::1]:{server.port}\r\n".encode() in server.visits[0].requests[0]
