"""What an answer goes out through: its head and its body in one piece."""

from asyncio import AbstractEventLoop, Transport
from typing import Any

HEAD = b"HTTP/1."


class HeadWithBody:
    """A connection's transport that keeps an answer's head until the first of its body comes.

    uvicorn writes the two one after the other, which is a system call more, and wakes whoever waits for the answer when
    the better part of it is still to come. A head whose body is not ready goes out in the event loop's next turn.
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        """Send a piece of an answer, the head with what follows it."""
        if self._head:
            pieces, self._head = (self._head, data), b""
            self._transport.writelines(pieces)
        elif data[: len(HEAD)] == HEAD:  # it may be a view, which has no `startswith`
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Close once everything has been sent."""
        self._flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Say that nothing more comes."""
        self._flush()
        self._transport.write_eof()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
