"""Which replica gets the next request. Pure."""

from collections.abc import Mapping, Sequence

from machineshop.runtime.base import Replica


def choose(replicas: Sequence[Replica], in_flight: Mapping[str, int], refused: frozenset[str]) -> Replica | None:
    """The ready replica with the fewest requests in flight; the longest ready one where several have as few.

    Args:
        replicas: Those of one deployment.
        in_flight: How many requests each replica id has in hand.
        refused: Replicas that this request has been to already.
    """
    ready = [r for r in replicas if r.ready_since is not None and not r.draining and r.id not in refused]
    return min(ready, key=lambda replica: (in_flight.get(replica.id, 0), replica.ready_since or 0.0), default=None)
