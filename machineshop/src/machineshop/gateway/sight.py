"""The ready replicas, as they were a moment ago.

The runtime is not asked for every request: with thousands of replicas that would be most of the work. A replica that
ended meanwhile refuses the connection, or says that it takes nothing new, and another one gets the request.
"""

import time
from collections import defaultdict
from typing import Protocol

from machineshop.runtime.base import Replica

# How old what is seen may be, and which part of its time a server may look.
FRESH_SECONDS = 0.01
SHARE_OF_TIME = 0.05


class Replicas(Protocol):
    """Who knows the replicas: the runtime."""

    async def observe(self, deployment_id: str | None = None) -> list[Replica]:
        """Those of one deployment, or all of them."""
        ...


class Sight:
    """Sees which replicas a request may go to."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._ready: dict[str, list[Replica]] = {}
        self._fresh_until = 0.0

    async def ready(self, deployment_id: str) -> list[Replica]:
        """A deployment's ready replicas."""
        if time.monotonic() >= self._fresh_until:
            await self._look()
        return self._ready.get(deployment_id, [])

    def forget(self) -> None:
        """What was seen counts no more: something has changed."""
        self._fresh_until = 0.0

    async def of(self, deployment_id: str) -> list[Replica]:
        """All of its replicas, as they are now."""
        return await self._replicas.observe(deployment_id)

    async def _look(self) -> None:
        began = time.monotonic()
        ready: defaultdict[str, list[Replica]] = defaultdict(list)
        for replica in await self._replicas.observe():
            if replica.ready_since is not None and not replica.draining:
                ready[replica.deployment_id].append(replica)
        self._ready = dict(ready)
        now = time.monotonic()
        self._fresh_until = now + max(FRESH_SECONDS, (now - began) / SHARE_OF_TIME)
