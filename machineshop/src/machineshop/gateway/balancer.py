"""Which replica gets the next request. Pure."""

from collections.abc import Callable, Container, Sequence

from machineshop.runtime.base import Replica

# A run of a replica: its id, and since when that is ready. One that was started again may be asked again.
Run = tuple[str, float | None]


def run_of(replica: Replica) -> Run:
    """The present run of a replica."""
    return (replica.id, replica.ready_since)


def choose(replicas: Sequence[Replica], in_flight: Callable[[str], int], refused: Container[Run]) -> Replica | None:
    """The ready replica with the fewest requests in flight; the longest ready one where several have as few.

    Args:
        replicas: Those of one deployment.
        in_flight: How many requests a replica, by its id, has in hand.
        refused: Those that this request has been to already.
    """
    ready = [r for r in replicas if r.ready_since is not None and not r.draining and run_of(r) not in refused]
    if len(ready) < 2:
        return ready[0] if ready else None
    return min(ready, key=lambda replica: (in_flight(replica.id), replica.ready_since or 0.0))
