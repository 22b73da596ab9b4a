"""How an answer leaves: its head with its body."""

import asyncio
from typing import Any, cast

from machineshop.transport import HeadWithBody

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire:
    """Notes what is sent together, and what is done with the connection."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, ...] | str] = []

    def write(self, data: bytes) -> None:
        self.sent.append((data,))

    def writelines(self, pieces: Any) -> None:
        self.sent.append(tuple(pieces))

    def close(self) -> None:
        self.sent.append("close")

    def write_eof(self) -> None:
        self.sent.append("eof")

    def is_closing(self) -> bool:
        return "close" in self.sent


def carried() -> tuple[HeadWithBody, Wire]:
    wire = Wire()
    return HeadWithBody(cast("asyncio.Transport", wire), asyncio.get_running_loop()), wire


async def test_a_head_leaves_with_the_first_of_its_body() -> None:
    transport, wire = carried()
    for piece in (HEAD, b"one", b"two"):
        transport.write(piece)
    assert wire.sent == [(HEAD, b"one"), (b"two",)]
    await asyncio.sleep(0)
    assert wire.sent == [(HEAD, b"one"), (b"two",)]


async def test_a_head_whose_body_is_not_ready_leaves_in_the_next_turn() -> None:
    transport, wire = carried()
    transport.write(HEAD)
    assert wire.sent == []
    await asyncio.sleep(0)
    assert wire.sent == [(HEAD,)]
    transport.write(b"one")
    assert wire.sent == [(HEAD,), (b"one",)]


async def test_nothing_is_kept_when_the_connection_ends() -> None:
    transport, wire = carried()
    transport.write(HEAD)
    transport.write_eof()
    transport.write(HEAD)
    transport.close()
    await asyncio.sleep(0)
    assert wire.sent == [(HEAD,), "eof", (HEAD,), "close"]
    assert transport.is_closing()


async def test_of_two_heads_neither_is_lost() -> None:
    transport, wire = carried()
    goes_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    transport.write(goes_on)
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert wire.sent == [(goes_on, HEAD)]
