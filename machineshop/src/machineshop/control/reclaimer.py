"""Ends claims that their workers no longer renew, so that the jobs run again."""

import logging

from machineshop.services.queue import QueueService

log = logging.getLogger(__name__)


class Reclaimer:
    """One look at the claims."""

    def __init__(self, queue: QueueService) -> None:
        self._queue = queue

    async def run_once(self, now: float) -> None:
        """End the claims that have run out by now."""
        queues = await self._queue.expire(now)
        if queues:
            log.warning("claims.expired queues=%d", queues)
