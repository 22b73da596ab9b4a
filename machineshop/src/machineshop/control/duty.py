"""What the server that holds the lease does: it runs the control loops and the replicas."""

from collections.abc import Sequence

from machineshop.control.loop import Loop
from machineshop.runtime.base import Runtime

# How long replicas may take to end when another server has begun to run its own: what they finish within it counts,
# what they cannot finish is handed back.
STAND_DOWN_GRACE_SECONDS = 10.0


class Duty:
    """Begins, rests and ends with the lease (`lease.Tenant`).

    Args:
        loops: Those that run in one server at a time.
        runtime: What runs the replicas of this server.
    """

    def __init__(self, loops: Sequence[Loop], runtime: Runtime) -> None:
        self._loops = loops
        self._runtime = runtime
        self._ended = False

    async def take_up(self) -> None:
        """Run the loops. The reconciler goes on with the replicas that there are, or starts what there should be."""
        if not self._ended:
            for loop in self._loops:
                loop.start()

    async def pause(self) -> None:
        """Stop the loops and let the replicas be: as long as nobody else has taken over they are of use."""
        for loop in self._loops:
            await loop.stop()

    async def stand_down(self) -> None:
        """Stop the loops and end the replicas: their successors are starting elsewhere."""
        await self.pause()
        await self._runtime.stand_down(STAND_DOWN_GRACE_SECONDS)

    async def end(self) -> None:
        """Stop for good: the server is about to end."""
        self._ended = True
        await self.pause()
