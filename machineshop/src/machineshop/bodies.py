"""Bodies that are read whole, or taken as they come, with bounds on what they take of time and memory."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Receive
from starlette.types import Scope as AsgiScope

from machineshop.errors import BodiesTooMany, BodyTooSlow, PayloadTooLarge
from machineshop.shortcut import shortcut_of

# How long a body that is read whole may stall.
BODY_SILENCE_SECONDS = 60.0
# How long all of it may take: the largest one comes in time at 14 kB/s.
BODY_SECONDS = 600.0
# How long a file or a layer may stall, which some make while they send it. Who sends it holds what it goes into: nobody
# can go on with it before a caller that has vanished is given up.
STREAM_SILENCE_SECONDS = 120.0
# What of bodies that are on their way may be in memory together: their clients say how long it stays there.
BODIES_LIMIT_BYTES = 256 * 1024 * 1024
# A quarter of it for one project: its clients cannot keep those of others out.
PROJECT_LIMIT_BYTES = BODIES_LIMIT_BYTES // 4
# A smaller body is read whatever others send: its connection has as much in memory anyhow.
SMALL_BODY_BYTES = 64 * 1024


async def read_body(
    scope: AsgiScope,
    receive: Receive,
    limit_bytes: int,
    whose: str,
    what: str = "The request body",
    mend: str = "Upload large inputs as files and send their URLs.",
) -> bytes:
    """The whole body.

    Args:
        scope: Whose it is.
        receive: Where it comes from.
        limit_bytes: How long it may be.
        whose: The project that sends it.
        what: What it is, where it is too long.
        mend: What to do then.

    Raises:
        PayloadTooLarge: It is longer than `limit_bytes`; no more than that was read.
        BodyTooSlow: Nothing of it came for `BODY_SILENCE_SECONDS`, or it was not whole after `BODY_SECONDS`.
        BodiesTooMany: It is no small one, and those that are on their way are `BODIES_LIMIT_BYTES` together, or
            `PROJECT_LIMIT_BYTES` those of its project.
        ClientDisconnect: The caller hung up before the end of it.
    """
    shortcut = shortcut_of(scope)
    whole = None if shortcut is None else shortcut.whole_body(scope)
    if whole is not None:
        if len(whole) > limit_bytes:
            raise PayloadTooLarge(what=what, limit_bytes=limit_bytes, mend=mend)
        return whole
    parts: list[bytes] = []
    size = 0
    with _on_their_way.one(whose) as held:
        async for part in _pieces(receive, BODY_SILENCE_SECONDS, BODY_SECONDS):
            size += len(part)
            if size > limit_bytes:
                raise PayloadTooLarge(what=what, limit_bytes=limit_bytes, mend=mend)
            held.grow(size)
            parts.append(part)
        return b"".join(parts)


def pieces_of_body(receive: Receive) -> AsyncIterator[bytes]:
    """A body as it comes; it may take as long as it likes in all.

    Raises:
        BodyTooSlow: Nothing of it came for `STREAM_SILENCE_SECONDS`.
        ClientDisconnect: The caller hung up before the end of it.
    """
    return _pieces(receive, STREAM_SILENCE_SECONDS, math.inf)


async def _pieces(receive: Receive, silence_seconds: float, seconds: float) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    until, more = now() + seconds, True
    while more:
        left_seconds = until - now()
        try:
            async with asyncio.timeout(min(silence_seconds, left_seconds)):
                message = await receive()
        except TimeoutError:
            if left_seconds < silence_seconds:
                raise BodyTooSlow(seconds, whole=True) from None
            raise BodyTooSlow(silence_seconds) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        yield message.get("body", b"")


class BodiesOnTheirWay:
    """How many bytes of bodies that are not whole yet this process has in memory; small ones do not count."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self.of_projects: Counter[str] = Counter()

    @contextmanager
    def one(self, whose: str) -> Iterator["BodyOnItsWay"]:
        """One more, until the end of the block."""
        body = BodyOnItsWay(self, whose)
        try:
            yield body
        finally:
            self.count(whose, -body.counted_bytes)
            if not self.of_projects[whose]:
                del self.of_projects[whose]

    def count(self, whose: str, more_bytes: int) -> None:
        """So much more is there, or less."""
        self.size_bytes += more_bytes
        self.of_projects[whose] += more_bytes


class BodyOnItsWay:
    """One of them."""

    def __init__(self, all_of_them: BodiesOnTheirWay, whose: str) -> None:
        self._all, self._whose = all_of_them, whose
        self.counted_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """So much of it has come.

        Raises:
            BodiesTooMany: With it, all of them, or those of its project, are more than may be.
        """
        if size_bytes <= SMALL_BODY_BYTES:
            return
        more_bytes = size_bytes - self.counted_bytes
        for held_bytes, limit_bytes in (
            (self._all.of_projects[self._whose], PROJECT_LIMIT_BYTES),
            (self._all.size_bytes, BODIES_LIMIT_BYTES),
        ):
            if held_bytes + more_bytes > limit_bytes:
                raise BodiesTooMany(limit_bytes)
        self._all.count(self._whose, more_bytes)
        self.counted_bytes = size_bytes


_on_their_way = BodiesOnTheirWay()
