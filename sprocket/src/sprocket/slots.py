"""How many jobs the model may work on at a time, and who is next where all of that is in use."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A number of places at the model: the first to ask gets one first. Where one is free it can be had at once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_if_free(self) -> bool:
        """Take a slot, if there is one; give whether there was."""
        if not self.free:
            return False
        self.free -= 1
        return True

    async def take(self) -> None:
        """Wait for a slot, and take it."""
        if self.take_if_free():
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Pass a slot on to who has waited longest; free it where nobody waits."""
        while self._waiting:
            next_one = self._waiting.popleft()
            if not next_one.done():
                next_one.set_result(None)
                return
        self.free += 1
