"""One connection to a replica, or to another server: HTTP/1.1 written and read, one request at a time.

Place in the flow: the pool makes connections and keeps those that can be used again; an exchange writes its request to
one and reads the answer from it. Nothing is buffered beyond `HIGH_WATER_BYTES`: who reads slowly makes the other side
wait.
"""

import asyncio
from collections import deque
from typing import NamedTuple, cast

import httptools

from machineshop.gateway.headers import BODILESS, Header

# What is read ahead of the caller.
HIGH_WATER_BYTES = 256 * 1024
# The bounds of an answer's head; what a server accepts of its callers is no more.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 200
TOO_LARGE = f"a head of more than {MAX_HEAD_BYTES} bytes"
SWITCHING = 101


class Fault(Exception):
    """Why an exchange with the other side came to nothing, in a few words."""


class Unreachable(Fault):
    """It could not be connected to: nothing of the request was sent."""


class BrokenOff(Fault):
    """It ended the connection before the answer was whole."""


class Garbled(Fault):
    """What it said is no answer of HTTP/1.1."""


class Silent(Fault):
    """It said nothing for too long."""


class HungUp(Fault):
    """The caller ended its own connection."""


class Head(NamedTuple):
    """The beginning of an answer."""

    status: int
    headers: list[Header]


class Connection(asyncio.Protocol):
    """A connection that carries one request after another."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._loop = asyncio.get_running_loop()
        self._fault: Fault | None = None
        self._lost = False
        self._writable: asyncio.Future[None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._exchanging = False
        self.complete = True
        """Whether the whole answer has come."""
        self.released = False
        """Whether the connection is somebody else's now."""
        self._rest = b""

    # What an exchange does with it.

    def begin(self, *, head_only: bool) -> None:
        """Expect the answer to a request that is about to be written.

        Args:
            head_only: It is to HEAD, whose answer is over with its head.
        """
        self._head_only = head_only
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[Header] = []
        self._head: Head | None = None
        self._head_bytes = 0
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._reading_paused = False
        self._until_close = False
        self._reusable = False
        self.complete = False
        self._exchanging = True

    def write(self, data: bytes) -> None:
        """Send a piece of the request."""
        self._active_at = self._loop.time()
        self.transport.write(data)

    async def drain(self) -> None:
        """Return once the other side has taken enough of what was written.

        Raises:
            Fault: It never will.
        """
        while self._writable is not None and self._fault is None and not self._lost:
            await self._writable
        if self._fault is not None:
            raise self._fault
        if self._lost:
            raise BrokenOff("the connection was closed")

    async def head(self, limit_seconds: float) -> Head:
        """The beginning of the answer.

        Raises:
            Fault: There is none.
        """
        while self._head is None:
            await self._wait(limit_seconds)
        return self._head

    async def read(self, limit_seconds: float) -> bytes:
        """The next piece of the answer's body; empty at its end.

        Raises:
            Fault: It breaks off.
        """
        while not self._parts:
            if self.complete:
                return b""
            await self._wait(limit_seconds)
        part = self._parts.popleft()
        self._size -= len(part)
        if self._reading_paused and self._size < HIGH_WATER_BYTES // 2:
            self._reading_paused = False
            self.transport.resume_reading()
        return part

    def at_hand(self) -> bytes | None:
        """The whole body, where it is there already; None where more is to come."""
        if not self.complete:
            return None
        body = b"".join(self._parts)
        self._parts.clear()
        return body

    def abort(self, fault: Fault) -> None:
        """Give up: whoever waits hears why, and the connection ends."""
        if self._fault is None:
            self._fault = fault
        self._reusable = False
        self.transport.abort()
        self._wake()

    def end(self) -> bool:
        """The exchange is over; whether the connection may carry another one."""
        self._exchanging = False
        usable = self.complete and self._reusable and not self._parts and not self.transport.is_closing()
        return usable and self._fault is None and not self._lost and self._writable is None

    def release(self) -> tuple[asyncio.Transport, bytes]:
        """After status 101: the bare connection, and what came on it already."""
        self.released = True
        return self.transport, self._rest

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The answer ends here, where nothing else says how long it is."""
        self._lost = True
        if self._exchanging and not self.complete:
            if self._until_close and exc is None:
                self.complete = True
            elif self._fault is None:
                self._fault = BrokenOff(type(exc).__name__ if exc else "the connection was closed")
        self._reusable = False
        self._wake()
        self._let_write()

    def eof_received(self) -> bool:
        """Close our side too."""
        return False

    def pause_writing(self) -> None:
        """The other side takes no more for now."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """It goes on."""
        self._let_write()

    def data_received(self, data: bytes) -> None:
        """Parse on."""
        if not self._exchanging:
            self.transport.close()  # nobody has asked for anything
            return
        if self.complete:
            self._reusable = False
            return
        if self._head is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._rest += data[upgrade.args[0] :]
            self.transport.pause_reading()
        except httptools.HttpParserError as error:
            self._garbled(str(error.__context__ or error))
        if self._head is None and self._head_bytes > MAX_HEAD_BYTES:
            self._garbled(TOO_LARGE)
        if self._size > HIGH_WATER_BYTES and not self._reading_paused and not self.complete:
            self._reading_paused = True
            self.transport.pause_reading()

    # What the parser tells.

    def on_message_begin(self) -> None:
        """An answer begins; after the whole one nobody has asked for more."""
        if self.complete:
            self._reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head; those after a body are left out."""
        if self._head is None:
            self._headers.append((name.lower(), value))
            if len(self._headers) > MAX_HEADERS:
                raise Garbled(f"more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        """The end of a head."""
        if self.complete:
            return
        # What came may hold the body's beginning too: only where there is too much of it, the head is measured.
        if self._head_bytes > MAX_HEAD_BYTES and self._size_of_head() > MAX_HEAD_BYTES:
            raise Garbled(TOO_LARGE)
        status = self._parser.get_status_code()
        if status < 200 and status != SWITCHING:
            self._headers = []  # it only announces the answer
            return
        names = {name for name, _ in self._headers}
        if b"transfer-encoding" in names:
            self._check_coding()
        elif b"content-length" not in names:
            self._until_close = status not in BODILESS
        self._head = Head(status, self._headers)
        if self._head_only:
            self._finish()
        self._wake()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self.complete:
            self._reusable = False  # a body after HEAD
            return
        self._parts.append(body)
        self._size += len(body)
        self._wake()

    def on_message_complete(self) -> None:
        """The end of an answer."""
        if self._head is not None and not self.complete:
            self._finish()

    # Steps.

    def _finish(self) -> None:
        self.complete = True
        # After status 101 the other side speaks no HTTP any more, also where nobody had asked it for that.
        self._reusable = self._parser.get_status_code() != SWITCHING and self._parser.should_keep_alive()
        self._wake()

    def _size_of_head(self) -> int:
        return sum(len(name) + len(value) + len(b": \r\n") for name, value in self._headers)

    def _check_coding(self) -> None:
        """Only one coding is undone here; another would reach the caller without a word about it."""
        codings = b",".join(value for name, value in self._headers if name == b"transfer-encoding")
        if codings.strip().lower() != b"chunked":
            raise Garbled(f"transfer-encoding {codings.decode('latin-1')[:64]!a}")

    def _garbled(self, what: str) -> None:
        if self.complete:
            self._reusable = False
        else:
            self.abort(Garbled(what))

    async def _wait(self, limit_seconds: float) -> None:
        """Return once there is something new."""
        self._raise_fault()
        self._news = self._loop.create_future()
        self._timer = self._loop.call_later(limit_seconds, self._silent, limit_seconds)
        try:
            await self._news
        finally:
            self._timer.cancel()
            self._news = None
        if not self._parts and not self.complete:
            self._raise_fault()

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _silent(self, limit_seconds: float) -> None:
        silent_seconds = self._loop.time() - self._active_at
        if silent_seconds < limit_seconds / 2:  # it was being written to all the while
            self._timer = self._loop.call_later(limit_seconds - silent_seconds, self._silent, limit_seconds)
        else:
            self.abort(Silent(f"nothing came for {limit_seconds:g} s"))

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _let_write(self) -> None:
        waiting, self._writable = self._writable, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
