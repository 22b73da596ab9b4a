"""Takes back what replicas hold that a server before this one had started.

Place in the flow: a server that has just taken the lease over runs its own replicas. Those of the server before may
still run on a machine that nobody looks after, with an older revision and jobs that nobody would ever free. They get
some time to finish and deliver what they have in hand, where they still reach the platform; then their keys end, and
what they hold goes back to the queue. A replica that missed all of this is refused with its next request.
"""

import logging
from typing import Protocol

from machineshop.runtime.base import ReplicaStatus, ReplicaWatcher, Runtime
from machineshop.services.identity import IdentityService
from machineshop.services.upkeep import QueueUpkeep

log = logging.getLogger(__name__)

# Longer than a server that stands down in good order lets its replicas take (`duty.STAND_DOWN_GRACE_SECONDS`).
GRACE_SECONDS = 15.0


class Tenure(Protocol):
    """Since when this server has been on duty: the lease."""

    @property
    def held_seconds(self) -> float:
        """For how long, without a break."""
        ...


class Strangers:
    """One look, once in each time on duty."""

    def __init__(
        self,
        tenure: Tenure,
        identity: IdentityService,
        upkeep: QueueUpkeep,
        runtime: Runtime,
        watcher: ReplicaWatcher,
    ) -> None:
        self._tenure = tenure
        self._identity = identity
        self._upkeep = upkeep
        self._runtime = runtime
        self._watcher = watcher
        self._looked_after_seconds = float("inf")

    async def run_once(self, _now: float) -> list[str]:
        """End what replicas hold that are not this server's; returns which, where it was time to look."""
        held_seconds = self._tenure.held_seconds
        looked = self._looked_after_seconds <= held_seconds
        if held_seconds < GRACE_SECONDS or looked:
            return []
        # In this order: a replica that starts meanwhile is known to the runtime before it has a key.
        found = await self._identity.replicas_with_keys() | await self._upkeep.busy_replicas()
        mine = {r.id for r in await self._runtime.observe() if r.status is not ReplicaStatus.TERMINATED}
        strangers = sorted(found - mine)
        for replica_id in strangers:
            log.warning("replica.disowned replica_id=%s", replica_id)
            await self._watcher.replica_exited(replica_id)
        self._looked_after_seconds = held_seconds
        return strangers
