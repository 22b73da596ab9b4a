"""Upkeep of the queues: what the control loops do in them, and ask of them. `services/queue` has what users do."""

import math
import time
from collections.abc import Callable

from machineshop.services.changes import Changes
from machineshop.services.dispatch import Dispatcher
from machineshop.store import chunks, jobs, losses, queues, withdrawals
from machineshop.store.database import Database

_CLEAN_CHUNK = 1000


class QueueUpkeep:
    """Ends what is overdue, lost or left over, and removes what is old.

    Args:
        database: Where the queues lie.
        dispatcher: Hands out what comes back.
        changes: Tells those who follow.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, database: Database, dispatcher: Dispatcher, changes: Changes, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self.dispatcher = dispatcher
        self._changes = changes
        self._clock = clock

    async def reclaim(self, now: float, heard_seconds: float = math.inf) -> frozenset[str]:
        """End what is overdue: claims, deadlines, cancels; returns the replicas that are to be replaced.

        Args:
            now: Seconds since the epoch.
            heard_seconds: For how long workers could renew their claims: one that is longer than that has not run out.
        """
        replicas: set[str] = set()
        for deployment_id in await self._database.read(losses.deployments_to_reclaim, now, heard_seconds):
            reclaimed = await self._database.write_in_queue(
                deployment_id, losses.reclaim, deployment_id, now, heard_seconds
            )
            missed = await self._database.write_in_queue(deployment_id, withdrawals.miss, deployment_id, now)
            # A worker whose claim met too many that were late waits, and there may be others behind them.
            self._came_back(deployment_id, reclaimed.back + reclaimed.ended + missed)
            replicas |= reclaimed.replicas
        return frozenset(replicas)

    async def lose_replica(self, replica_id: str, how: str | None = None) -> None:
        """End the claims of a replica that is gone; `how` says in a few words how it ended."""
        for deployment_id in await self._database.read(losses.deployments_of_replica, replica_id):
            number = await self._database.write_in_queue(
                deployment_id, losses.lose_replica, replica_id, self._clock(), how
            )
            self._came_back(deployment_id, number)

    async def has_worked(self, deployment_id: str, replica_id: str, since: float) -> bool:
        """Whether a replica has ended a job since then, as far as the last jobs of its queue tell."""
        return await self._database.read(jobs.has_worked, deployment_id, replica_id, since)

    async def stuck_replicas(self, deployment_id: str, before: float, heard_since: float = 0.0) -> list[str]:
        """The replicas of a deployment with a job whose model has said nothing since `before`.

        Those alone whose workers have been heard since `heard_since`: of others nobody knows.
        """
        return await self._database.read(jobs.stuck_replicas, deployment_id, before, heard_since)

    async def end_all(self, deployment_id: str) -> None:
        """End the jobs of a deployment that is gone with all its replicas."""
        while await self._database.write_in_queue(deployment_id, withdrawals.end_all, deployment_id, self._clock()):
            pass
        self._changes.tell(deployment_id)

    async def busy_replicas(self) -> frozenset[str]:
        """The replicas that have a job in hand."""
        return await self._database.read(jobs.busy_replicas)

    async def clean(self, now: float) -> int:
        """Remove ended jobs that are too old or too many, and lines that nobody needs; returns how many jobs."""
        removed = 0
        for deployment_id, keep_seconds, keep_count in await self._database.read(queues.retention):
            while number := await self._database.write_in_queue(
                deployment_id, jobs.remove_old, deployment_id, keep_count, now - keep_seconds, _CLEAN_CHUNK
            ):
                removed += number
            await self._database.write_in_queue(deployment_id, queues.remove_idle_lines, deployment_id)
        while await self._database.write(chunks.remove_of_ended, _CLEAN_CHUNK):
            pass
        return removed

    def _came_back(self, deployment_id: str, number: int) -> None:
        if number:
            self.dispatcher.wake(deployment_id, number)
        self._changes.tell(deployment_id)
