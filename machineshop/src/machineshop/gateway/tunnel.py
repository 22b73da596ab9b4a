"""A connection that has become something else, a WebSocket: bytes pass both ways as they come.

The gateway reads none of them. Each side's transport is read no faster than the other one takes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

# How often the caller's key is looked at: as soon as a revoked one is refused elsewhere.
LOOK_SECONDS = 2.0


class Side(asyncio.Protocol):
    """One of the two ends.

    Args:
        ended: Set when its connection is gone.
    """

    def __init__(self, ended: asyncio.Event) -> None:
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.passed_bytes = 0
        self.silent = False
        """Whether it has said that it says no more."""
        self._other: Side = self
        self._ended = ended

    def join(self, other: "Side") -> None:
        """What comes here goes there."""
        self._other = other

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.passed_bytes += len(data)
        self._other.transport.write(data)

    def eof_received(self) -> bool:
        """It says no more, and may still listen while the other one speaks."""
        self.silent = True
        if self._other.silent:
            # Neither transport would close of itself: each waits for what the other half may still send.
            self._other.transport.close()
            return False
        if self._other.transport.can_write_eof():
            self._other.transport.write_eof()
            return True
        return False

    def pause_writing(self) -> None:
        """It takes no more for now."""
        if not self._other.transport.is_closing():
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        """It goes on."""
        if not self._other.transport.is_closing():
            self._other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone, and so is the other one, once that has got what there was."""
        if exc is None:
            self._other.transport.close()
        else:
            self._other.transport.abort()
        self._ended.set()


async def carry(
    caller_side: Callable[[asyncio.Protocol], tuple[asyncio.Transport, bytes]],
    replica: tuple[asyncio.Transport, bytes],
    silence_seconds: float,
    key_holds: Callable[[], Awaitable[bool]] | None = None,
) -> int:
    """Pass bytes between a caller and a replica until one of them ends it, nobody speaks for too long, or a key ends.

    Args:
        caller_side: Hands the caller's connection to a protocol, and gives it with what came on it already.
        replica: The other connection, and what came on that.
        silence_seconds: How long nothing may pass.
        key_holds: Asked whether the caller's key is good still; None: somebody else looks.

    Returns:
        How many bytes passed, in both directions.
    """
    ended = asyncio.Event()
    near, far = Side(ended), Side(ended)
    near.join(far)
    far.join(near)
    far.transport, from_replica = replica
    near.transport, from_caller = caller_side(near)
    far.transport.set_protocol(far)
    try:
        if from_replica:
            far.data_received(from_replica)
        if from_caller:
            near.data_received(from_caller)
        if near.transport.is_closing():
            far.transport.close()
        else:
            far.transport.resume_reading()
        await _until(ended, near, far, silence_seconds, key_holds)
    finally:
        for side in (near, far):
            side.transport.close()
    return near.passed_bytes + far.passed_bytes


async def _until(
    ended: asyncio.Event,
    near: Side,
    far: Side,
    silence_seconds: float,
    key_holds: Callable[[], Awaitable[bool]] | None,
) -> None:
    loop = asyncio.get_running_loop()
    passed, spoken_at = -1, loop.time()
    while not ended.is_set() and (key_holds is None or await key_holds()):
        if passed != near.passed_bytes + far.passed_bytes:
            passed, spoken_at = near.passed_bytes + far.passed_bytes, loop.time()
        left = spoken_at + silence_seconds - loop.time()
        if left <= 0:
            return
        try:
            async with asyncio.timeout(min(left, LOOK_SECONDS)):
                await ended.wait()
        except TimeoutError:
            continue
