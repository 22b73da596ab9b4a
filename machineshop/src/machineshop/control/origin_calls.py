"""An origin, called from the event loop: each call in a thread, and with a bound of time.

Where a call takes too long or is given up, all connections of the origin are broken off: no thread waits on.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Executor
from typing import TypeVar

from machineshop.blobs.base import CHUNK_BYTES
from machineshop.blobs.origin import Origin, OriginObject, OriginTrouble

T = TypeVar("T")

# One answer, or a chunk of a file: slower than this (about 9 kB/s) is as good as nothing.
CALL_SECONDS = 120.0


class OriginCalls:
    """The calls of one copy. Each may raise `OriginTrouble`.

    Args:
        origin: What is called.
        threads: Where it is.
    """

    def __init__(self, origin: Origin, threads: Executor) -> None:
        self._origin = origin
        self._threads = threads

    @property
    def address(self) -> str:
        """Of the storage."""
        return self._origin.address

    async def pages(self) -> AsyncIterator[list[OriginObject]]:
        """All objects, a page at a time; a page may be empty."""
        pages = self._origin.objects()
        while (page := await self._ask(lambda: next(pages, None))) is not None:
            yield page

    async def chunks(self, found: OriginObject) -> AsyncGenerator[bytes, None]:
        """An object's bytes; trouble, where they are not as many as were listed."""
        body = await self._ask(lambda: self._origin.open(found))
        try:
            size = 0
            while data := await self._ask(lambda: self._origin.read(body, CHUNK_BYTES)):
                size += len(data)
                yield data
        finally:
            await self._run(body.close)
        if size != found.size:
            raise OriginTrouble(f"'{found.path}' broke off after {size} of {found.size} bytes.", is_final=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._run(self._origin.close)

    async def _ask(self, call: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._run(call)
        except asyncio.CancelledError:
            self._origin.break_off()
            raise
        except TimeoutError:
            self._origin.break_off()
            text = f"Its object storage sends too little: not one list or {CHUNK_BYTES} bytes in {CALL_SECONDS:.0f} s."
            raise OriginTrouble(text, is_final=False) from None

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
