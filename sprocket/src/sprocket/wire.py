"""Requests to the platform over connections that stay open: the way that a job comes in and its result goes out.

An idle worker wakes up with cold caches, and every function on the way from a claim's bytes to predict delays the job.
With aiohttp's client that way took 0.57 ms (median, from the server's send to predict); with this module, `answer` and
`Workbench.begin` it takes 0.45 ms, 0.17 ms of which pass before the bytes are in this process. aiohttp does what is not
so urgent and not so simple: downloads, uploads, and the worker's own server.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, urlsplit

from .answer import Answer
from .errors import PlatformAwayError

CONNECT_SECONDS = 10.0
"""TLS included, which a server that many workers come back to may take its time for."""

KEPT_CONNECTIONS = 2
"""A heartbeat may overlap a result; more requests than that never run at a time."""
KEPT_SECONDS = 60.0
"""Firewalls forget a quiet connection without telling anybody."""

RECEIVE_BYTES = 64 * 1024

PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
CLOSED = "the connection was closed"

Made = TypeVar("Made")


class _UnansweredError(PlatformAwayError):
    """The connection ended before a byte of the answer came."""


class Wire:
    """Speaks HTTP/1.1 to one server. Use inside a running event loop; `close` it.

    Every request that goes through here may reach the server twice; claims with a name (`turns.py`) and fenced updates
    stand that.

    Args:
        base_url: http(s)://host[:port][/path], as `config.normalize_base_url` gives it.
        headers: sent with every request.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        url = urlsplit(base_url)
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._tls else 80)
        self._path = quote(url.path, safe=PATH_CHARACTERS)
        netloc = url.netloc if url.netloc.isascii() else url.netloc.encode("idna").decode()
        self._headers = _lines({"Host": netloc, "Accept-Encoding": "identity", **headers})
        self._kept: list[_Connection] = []
        self._used: set[_Connection] = set()

    async def close(self) -> None:
        """Close the connections."""
        for connection in (*self._kept, *self._used):
            connection.abort()
        self._kept.clear()
        await asyncio.sleep(0)  # The event loop closes a socket in its next turn.

    async def request(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        headers: Callable[[], Mapping[str, str]],
        timeout_seconds: float,
        read: Callable[[Answer], Made],
        on_arrival: Callable[[], object] | None = None,
    ) -> Made:
        """Send a request and wait for the whole answer. A cancel closes the connection at once.

        Args:
            method: GET or POST.
            target: the path below the base URL, with its query.
            body: the body; empty for none.
            headers: gives further headers; asked once for each time that the request is sent.
            timeout_seconds: for everything but connecting.
            read: makes of the answer what is returned. It is called as soon as the answer is complete, one turn of
                the event loop before the caller wakes; what it raises is raised here.
            on_arrival: called when the first byte of the answer is there.

        Raises:
            PlatformAwayError: no connection, no answer in time, or one that is no HTTP.
        """
        length = f"Content-Length: {len(body)}\r\n" if method == "POST" else ""

        def request() -> _Request[Made]:
            head = f"{method} {self._path}{target} HTTP/1.1\r\n{self._headers}{_lines(headers())}{length}\r\n"
            return _Request(head.encode("latin-1") + body, timeout_seconds, read, on_arrival)

        kept = self._keeper()
        if kept is not None:
            try:
                return await self._carry(kept, request())
            except _UnansweredError:
                pass  # The server had closed it meanwhile, as it may.
        return await self._carry(await self._connect(), request())

    def _keeper(self) -> _Connection | None:
        """Take a kept connection that can still be used."""
        while self._kept:
            connection = self._kept.pop()
            if connection.is_open and connection.quiet_seconds() < KEPT_SECONDS:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        connection = _Connection(loop)
        connecting = asyncio.ensure_future(
            loop.create_connection(lambda: connection, self._host, self._port, ssl=self._tls)
        )
        try:
            await asyncio.wait([connecting], timeout=CONNECT_SECONDS)
            if not connecting.done():
                raise self._unreachable("timed out")
            connecting.result()
        except (OSError, UnicodeError) as error:
            raise self._unreachable(_reason(error)) from None
        except asyncio.CancelledError:
            connection.abort()
            raise
        finally:
            connecting.cancel()
        return connection

    def _unreachable(self, reason: str) -> PlatformAwayError:
        return PlatformAwayError(f"cannot connect to {self._host}:{self._port} ({reason})")

    async def _carry(self, connection: _Connection, request: _Request[Made]) -> Made:
        self._used.add(connection)
        try:
            return await connection.exchange(request)
        finally:
            self._used.discard(connection)
            if connection.is_open and len(self._kept) < KEPT_CONNECTIONS:
                self._kept.append(connection)
            else:
                connection.abort()


@dataclass(frozen=True)
class _Request(Generic[Made]):
    """What `Wire.request` was asked for, ready to be sent."""

    message: bytes
    timeout_seconds: float
    read: Callable[[Answer], Made]
    on_arrival: Callable[[], object] | None


class _Connection(asyncio.BufferedProtocol):
    """One connection, with one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Read into a buffer of ours: for a protocol that takes bytes, asyncio allocates 256 KiB for every read, and
        # fresh pages for that cost a worker that wakes from its sleep 0.06 ms.
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._transport: asyncio.Transport | None = None
        self._request: _Request[Any] | None = None
        self._waiter: asyncio.Future[Any] = loop.create_future()
        self._answer = Answer()
        self._answered = False
        self._quiet_since = loop.time()

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent: nobody has closed the connection, and the last request has left it."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def quiet_seconds(self) -> float:
        """Give the time since the last answer."""
        return self._loop.time() - self._quiet_since

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, request: _Request[Made]) -> Made:
        """Send a request, wait for its answer; anything but a clean end of that closes the connection."""
        waiter: asyncio.Future[Made] = self._loop.create_future()
        self._request, self._waiter, self._answer, self._answered = request, waiter, Answer(), False
        if self._transport is None:
            raise _UnansweredError(CLOSED)
        self._transport.write(request.message)
        timer = self._loop.call_later(request.timeout_seconds, self._fail, PlatformAwayError("timed out"))
        try:
            return await waiter
        finally:
            timer.cancel()
            self._request = None
            self._quiet_since = self._loop.time()
            if not self._answer.reusable:
                self.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin. asyncio has switched Nagle's delays off."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the hint is always -1
        """Say where to put what arrives."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read what has arrived."""
        request = self._request
        if request is None or self._waiter.done():
            self.abort()  # Nobody has asked for this.
            return
        if not self._answered:
            self._answered = True
            if request.on_arrival is not None:
                request.on_arrival()
        try:
            complete = self._answer.feed(bytes(self._buffer[:nbytes]))
        except PlatformAwayError as error:
            self._fail(error)
            return
        if complete:
            self._deliver(request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note that nothing more will come."""
        self._transport = None
        request = self._request
        if request is None or self._waiter.done():
            return
        if not self._answered:
            self._fail(_UnansweredError(CLOSED))
        elif exc is None and self._answer.end():
            self._deliver(request)
        else:
            self._fail(PlatformAwayError(CLOSED))

    def _deliver(self, request: _Request[Any]) -> None:
        try:
            self._waiter.set_result(request.read(self._answer))
        except Exception as error:  # noqa: BLE001 - raised where the answer is awaited
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._waiter.done():
            self._waiter.set_exception(error)


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}; SSL_CERT_FILE names the certificates to trust"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
