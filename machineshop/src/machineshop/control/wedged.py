"""Finds workers that are wedged: they say that they live, and that their model has made no progress for too long.

Place in the flow: a worker's heartbeat carries how long its model has said nothing. How long that may be only the
user knows, so nothing is done where the deployment does not say (`progress_timeout_seconds`). The replica is started
again, and what it had in hand is tried again.
"""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from machineshop.control.hearing import Hearing
from machineshop.services.upkeep import QueueUpkeep
from machineshop.store import deployments
from machineshop.store.database import Database

log = logging.getLogger(__name__)


class Restarter(Protocol):
    """Who can end a replica's run so that it is started again: the runtime."""

    async def restart(self, replica_id: str, why: str) -> None:
        """End its run at once and start it again, as after a crash."""
        ...


class Wedged:
    """One look at the jobs that run.

    Args:
        database: What should run.
        upkeep: Of the queues.
        runtime: What runs the replicas.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, database: Database, upkeep: QueueUpkeep, runtime: Restarter, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._upkeep = upkeep
        self._runtime = runtime
        self._hearing = Hearing(clock)

    async def run_once(self, now: float) -> list[str]:
        """Restart the replicas that are wedged; returns which."""
        found: list[str] = []
        heard_since = self._hearing.since(now)
        for deployment in await self._database.read(deployments.list_of_all_projects):
            seconds = deployment.config.progress_timeout_seconds
            if seconds is None:
                continue
            why = f"Its job made no progress for {seconds} s (progress_timeout_seconds)."
            for replica_id in await self._upkeep.stuck_replicas(deployment.id, now - seconds, heard_since):
                log.warning("replica.wedged replica_id=%s seconds=%d", replica_id, seconds)
                await self._runtime.restart(replica_id, why)
                found.append(replica_id)
        self._hearing.go_on()
        return found
