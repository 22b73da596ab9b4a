"""How many jobs the model may work on at a time, and who is next where all of that is in use."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A number of places at the model: the first to ask gets one first. Where one is free it can be had at once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = count
        self._waiting: deque[asyncio.Future[bool]] = deque()

    def take_if_free(self) -> bool:
        """Take a slot, if there is one; give whether there was."""
        if not self.free:
            return False
        self.free -= 1
        return True

    async def take(self, patience_seconds: float | None = None) -> bool:
        """Wait for a slot, and take it; give whether there was one in time.

        Args:
            patience_seconds: how long to wait; None: for as long as it takes.
        """
        if self.take_if_free():
            return True
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(mine)
        timer = None if patience_seconds is None else loop.call_later(patience_seconds, _answer, mine, False)
        try:
            return await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.result():
                self.give_back()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def give_back(self) -> None:
        """Pass a slot on to who has waited longest; free it where nobody waits."""
        while self._waiting:
            next_one = self._waiting.popleft()
            if _answer(next_one, True):
                return
        self.free += 1


def _answer(waiting: asyncio.Future[bool], has_slot: bool) -> bool:
    """Tell somebody who waits; give whether it still did."""
    if waiting.done():
        return False
    waiting.set_result(has_slot)
    return True
