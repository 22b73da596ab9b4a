"""Where requests wait for a replica: one that wakes, starts, or has its hands full.

Place in the flow: the gateway gives a request a place here when no replica can take it, and looks again each time that
is called. Those of one deployment are called in the order in which they came.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Self

from machineshop.config import GatewayLimits
from machineshop.errors import MachineshopError, NoReadyReplica, NotFound
from machineshop.gateway.balancer import Run, run_of
from machineshop.gateway.connection import Fault
from machineshop.models import Deployment
from machineshop.runtime.base import Replica

# A replica that gets ready calls nobody, nor does one that was busy with something else, such as jobs.
LOOK_SECONDS = 0.05


class Place:
    """The place of one request, which keeps it however often it looks and waits again; a context manager."""

    def __init__(self, room: "WaitingRoom", deployment: Deployment) -> None:
        self._room, self._deployment = room, deployment
        self._call: asyncio.Future[None] | None = None
        self._end: MachineshopError | None = None

    def __enter__(self) -> Self:
        self._room.take(self._deployment, self)
        return self

    def __exit__(self, *_: object) -> None:
        self._room.leave(self._deployment.id, self)

    def call(self) -> bool:
        """Have it look again; whether it was waiting for that."""
        if self._call is None or self._call.done():
            return False
        self._call.set_result(None)
        return True

    def gone(self, fault: Fault) -> None:
        """Nobody waits there any more."""
        if self._call is not None and not self._call.done():
            self._call.set_exception(fault)

    def dismiss(self, error: MachineshopError) -> None:
        """There is nothing to wait for any more, now or later."""
        self._end = error
        if self._call is not None and not self._call.done():
            self._call.set_exception(error)

    async def called(self, seconds: float) -> None:
        """Return once it is called.

        Raises:
            TimeoutError: It was not, within so many seconds.
            Fault: Whoever waited is gone.
            MachineshopError: There is nothing to wait for.
        """
        if self._end is not None:
            raise self._end
        if seconds <= 0:
            raise TimeoutError
        self._call = asyncio.get_running_loop().create_future()
        self._room.waiting[self._deployment.id] += 1
        try:
            async with asyncio.timeout(seconds):
                await self._call
        finally:
            self._call = None
            self._room.waiting[self._deployment.id] -= 1


class WaitingRoom:
    """The requests that wait, by deployment.

    Args:
        limits: How many there may be.
        ready: Tells which replicas of a deployment are ready.
        look_up: Raises NotFound where a project has no such deployment any more.
    """

    def __init__(
        self,
        limits: GatewayLimits,
        ready: Callable[[str], Awaitable[list[Replica]]],
        look_up: Callable[[str, str], Awaitable[Deployment]],
    ) -> None:
        self._limits = limits
        self._ready = ready
        self._look_up = look_up
        self._changes = 0
        # Ordered by who came first; dicts are, and take anybody out at once.
        self._places: dict[str, dict[Place, None]] = {}
        self._lookouts: dict[str, asyncio.Task[None]] = {}
        self.waiting: Counter[str] = Counter()
        """How many wait at this moment, by deployment; kept by their places."""
        self.closed = False
        """Whether nobody may wait any more."""

    def place(self, deployment: Deployment) -> Place:
        """Room for one more: `with room.place(...) as place`.

        Raises:
            NoReadyReplica: There is none.
        """
        waiting = self.waiting[deployment.id]
        if waiting >= self._limits.held or self.waiting.total() >= self._limits.held_in_all:
            raise NoReadyReplica(
                f"No replica of '{deployment.name}' can take the request yet, and {waiting} others wait already, which "
                "is as many as may. Try again shortly."
            )
        return Place(self, deployment)

    def call_one(self, deployment_id: str) -> None:
        """A replica may have a hand free: the first one that waits looks again."""
        any(place.call() for place in self._places.get(deployment_id, ()))

    def deployments_changed(self) -> None:
        """Some deployment may be gone: it is looked whether those that are waited for are still there."""
        self._changes += 1

    def close(self) -> None:
        """Nobody waits any longer."""
        self.closed = True
        for deployment_id in self._places:
            self._call_all(deployment_id)

    def take(self, deployment: Deployment, place: Place) -> None:
        """A place is taken; said by the place itself."""
        self._places.setdefault(deployment.id, {})[place] = None
        if deployment.id not in self._lookouts:
            self._lookouts[deployment.id] = asyncio.ensure_future(self._look_out(deployment))

    def leave(self, deployment_id: str, place: Place) -> None:
        """It is free again."""
        places = self._places[deployment_id]
        del places[place]
        if not places:
            del self._places[deployment_id], self.waiting[deployment_id]
            self._lookouts.pop(deployment_id).cancel()

    def _call_all(self, deployment_id: str) -> None:
        for place in self._places.get(deployment_id, ()):
            place.call()

    async def _look_out(self, deployment: Deployment) -> None:
        """Call those who wait when another replica is ready, and the first one now and then."""
        known: set[Run] = set()
        checked: int | None = None  # it may have gone before anyone waited
        while True:
            ready = {run_of(replica) for replica in await self._ready(deployment.id)}
            if ready - known:
                self._call_all(deployment.id)
            elif ready:
                self.call_one(deployment.id)
            known = ready
            changes = self._changes
            if checked != changes and await self._still_there(deployment):
                checked = changes
            await asyncio.sleep(LOOK_SECONDS)

    async def _still_there(self, deployment: Deployment) -> bool:
        """Whether it was not deleted; where it was, those who wait for it are told."""
        try:
            await self._look_up(deployment.project_id, deployment.id)
        except NotFound:
            for place in self._places.get(deployment.id, ()):
                place.dismiss(NotFound(what="deployment", id=deployment.name))
            return False
        except MachineshopError:
            pass  # the database is away: who waits may still get a replica
        return True
