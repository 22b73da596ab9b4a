"""HTTP for those who count microseconds: prepared requests on keep-alive connections, answers as they come."""

import asyncio
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

from harness.errors import BenchmarkError

HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length: "
OK = b"HTTP/1.1 200"
ANSWER_LIMIT_SECONDS = 30.0
READ_BYTES = 64 * 1024


class Answers(asyncio.Protocol):
    """A keep-alive connection whose answers are handed on as they are whole.

    Args:
        handed: called with the bytes of each answer, and with none when the server has hung up.
    """

    def __init__(self, handed: Callable[[bytes], None]) -> None:
        self._handed = handed
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A piece of an answer has come."""
        self._received += data
        head, end, body = self._received.partition(HEAD_END)
        if end and len(body) >= _length(head):
            answer, self._received = self._received, b""
            self._handed(answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why is not told as a rule
        """The server hung up, or it was we."""
        if not self._closed:
            self._handed(b"")

    def send(self, request: bytes) -> None:
        """Send one request; the next one only after its answer."""
        assert self._transport is not None, "it is not connected"
        self._transport.write(request)

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        if self._transport is not None:
            self._transport.close()


async def connect(port: int, handed: Callable[[bytes], None]) -> Answers:
    """A connection to that port of 127.0.0.1."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Answers(handed), "127.0.0.1", port)
    return connection


class Pool:
    """Several connections, each with one request at a time.

    Args:
        port: of 127.0.0.1.
        size: how many.
    """

    def __init__(self, port: int, size: int) -> None:
        self._port, self._size = port, size
        self._free: list[_Caller] = []

    async def __aenter__(self) -> Self:
        """Connect."""
        for _ in range(self._size):
            caller = _Caller()
            caller.answers = await connect(self._port, caller.answered)
            self._free.append(caller)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Hang up."""
        for caller in self._free:
            caller.answers.close()

    async def ask(self, request: bytes) -> bytes:
        """The body of the answer; no more calls at once than there are connections.

        Raises:
            BenchmarkError: it is not a 200.
        """
        caller = self._free.pop()
        answer = await caller.ask(request)
        self._free.append(caller)
        return _body(answer)


class Line:
    """One connection, on which the caller's thread waits for each answer.

    Args:
        port: of 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_LIMIT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """The body of the answer.

        Raises:
            BenchmarkError: it is not a 200.
        """
        answer = b""
        try:
            self._socket.sendall(request)
            while received := self._socket.recv(READ_BYTES):
                answer += received
                head, end, body = answer.partition(HEAD_END)
                if end and len(body) >= _length(head):
                    break
        except OSError as error:
            raise BenchmarkError(f"A prepared request got no answer: {type(error).__name__}: {error}") from error
        return _body(answer)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


class _Caller:
    """A connection whose answers are awaited."""

    answers: Answers

    def __init__(self) -> None:
        self._waiting: asyncio.Future[bytes] | None = None

    async def ask(self, request: bytes) -> bytes:
        self._waiting = asyncio.get_running_loop().create_future()
        self.answers.send(request)
        return await self._waiting

    def answered(self, answer: bytes) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)


def post(path: str, api_key: str, body: bytes) -> bytes:
    """The bytes of a POST of JSON."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {api_key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + HEAD_END + body


def get(path: str, api_key: str) -> bytes:
    """The bytes of a GET."""
    return (
        "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {api_key}"]).encode() + HEAD_END
    )


def _body(answer: bytes) -> bytes:
    head, _, body = answer.partition(HEAD_END)
    if not head.startswith(OK):
        raise BenchmarkError(f"Refused: {answer[:500].decode(errors='replace') or 'the server hung up.'}")
    return body


def _length(head: bytes) -> int:
    at = head.lower().find(LENGTH)
    return 0 if at < 0 else int(head[at + len(LENGTH) :].partition(b"\r\n")[0])
