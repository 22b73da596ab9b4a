"""Images and volumes on their way to this machine before a deployment asks: a favour, whose failure nobody hears of."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from machineshop.runtime.engine import PreparationFailed

AT_ONCE = 4
"""More would only share the same line."""
WAITING_LIMIT = 64

logger = logging.getLogger(__name__)


class Prefetches:
    """Those under way."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[tuple[str, ...], asyncio.Task[None]] = {}

    def begin(self, what: tuple[str, ...], bring: Callable[[], Awaitable[object]]) -> None:
        """Bring something; what is under way already, or beyond the limit, is let be.

        Args:
            what: Its name, which tells it from all others.
            bring: Does it.
        """
        if what in self._tasks or len(self._tasks) >= WAITING_LIMIT:
            return
        task = asyncio.create_task(self._fetch(what, bring), name=f"prefetch {what}")
        self._tasks[what] = task
        task.add_done_callback(lambda _: self._tasks.pop(what, None))

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, what: tuple[str, ...], bring: Callable[[], Awaitable[object]]) -> None:
        async with self._room:
            try:
                await bring()
            except PreparationFailed as error:
                logger.info("not fetched before its time: what=%s error=%s", "/".join(what), error.message)
