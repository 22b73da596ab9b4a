"""Ends what is overdue in the queues: claims that nobody renews, deadlines, and cancels that nobody took up."""

import logging
from typing import Protocol

from machineshop.services.upkeep import QueueUpkeep

log = logging.getLogger(__name__)


class Replacer(Protocol):
    """Who can end a replica so that another takes its place: the runtime."""

    async def replace(self, replica_id: str) -> None:
        """End it at once; another is started for it."""
        ...


class Reclaimer:
    """One look at the queues."""

    def __init__(self, upkeep: QueueUpkeep, runtime: Replacer) -> None:
        self._upkeep = upkeep
        self._runtime = runtime

    async def run_once(self, now: float) -> None:
        """End what is overdue by now."""
        for replica_id in await self._upkeep.reclaim(now):
            log.warning("replica.replaced replica_id=%s reason=cancel_not_taken_up", replica_id)
            await self._runtime.replace(replica_id)
