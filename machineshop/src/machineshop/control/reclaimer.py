"""Ends what is overdue in the queues: claims that nobody renews, deadlines, and cancels that nobody took up."""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from machineshop.control.hearing import Hearing
from machineshop.services.upkeep import QueueUpkeep

log = logging.getLogger(__name__)


class Replacer(Protocol):
    """Who can end a replica so that another takes its place: the runtime."""

    async def replace(self, replica_id: str) -> None:
        """End it at once; another is started for it."""
        ...


class Reclaimer:
    """One look at the queues.

    Args:
        upkeep: Of the queues.
        runtime: What runs the replicas.
        clock: Seconds since the epoch.
    """

    def __init__(self, upkeep: QueueUpkeep, runtime: Replacer, clock: Callable[[], float] = time.time) -> None:
        self._upkeep = upkeep
        self._runtime = runtime
        self._hearing = Hearing(clock)

    async def run_once(self, now: float) -> None:
        """End what is overdue by now."""
        heard_seconds = now - self._hearing.since(now)
        for replica_id in await self._upkeep.reclaim(now, heard_seconds):
            log.warning("replica.replaced replica_id=%s reason=cancel_not_taken_up", replica_id)
            await self._runtime.replace(replica_id)
        self._hearing.go_on()
