"""Images on their way to this machine before a deployment asks for them: a favour, whose failure nobody hears of."""

import asyncio
import logging

from machineshop.runtime.engine import Engine, PreparationFailed

AT_ONCE = 4
"""More would only share the same line."""
WAITING_LIMIT = 64

logger = logging.getLogger(__name__)


class Prefetches:
    """Those under way.

    Args:
        engine: Brings them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    def begin(self, project_id: str, image: str) -> None:
        """Bring an image; one that is under way already, or beyond the limit, is let be."""
        key = (project_id, image)
        if key in self._tasks or len(self._tasks) >= WAITING_LIMIT:
            return
        task = asyncio.create_task(self._fetch(project_id, image), name=f"prefetch {image}")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, project_id: str, image: str) -> None:
        async with self._room:
            try:
                await self._engine.prefetch(project_id, image)
            except PreparationFailed as error:
                logger.info("image not fetched before its time: image=%s error=%s", image, error.message)
