"""What other servers have written, passed on to those here who wait for it.

News of one queue that come while it is being looked at are one more look, however many they are.
"""

import asyncio
import logging

from machineshop.errors import Unavailable
from machineshop.services.queue import QueueService

log = logging.getLogger(__name__)

# The database has just gone away: the listener will say that everything may have been missed, or it works again.
RETRY_SECONDS = 0.5


class News:
    """The queues that are to be looked at, and the task that does so."""

    def __init__(self, queue: QueueService) -> None:
        self._queue = queue
        self._fresh: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="news")

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def heard(self, deployment_id: str) -> None:
        """Somebody else has written in the queue of a deployment."""
        self._fresh[deployment_id] = None
        self._woken.set()

    def missed(self) -> None:
        """Anything may have happened in any queue."""
        self._queue.changes.wake_all()
        for deployment_id in self._queue.dispatcher.waiters.deployments():
            self.heard(deployment_id)

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._fresh:
                deployment_id = next(iter(self._fresh))
                del self._fresh[deployment_id]
                await self._look(deployment_id)

    async def _look(self, deployment_id: str) -> None:
        try:
            await self._queue.look_again(deployment_id)
        except Unavailable:
            self._fresh[deployment_id] = None
            await asyncio.sleep(RETRY_SECONDS)
        except Exception:
            log.exception("news.defect deployment_id=%s", deployment_id)
