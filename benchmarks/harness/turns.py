"""Systems take turns within rounds, so that a noisy neighbour on the machine meets all of them."""

import gc
import traceback
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Named(Protocol):
    """Whoever takes turns."""

    name: str


S = TypeVar("S", bound=Named)
T = TypeVar("T")


def in_turns(
    systems: Sequence[S], rounds: int, turn: Callable[[S], T], shown: Callable[[T], str]
) -> dict[str, list[T]]:
    """Each system's results, one for each round, by the system's name.

    Args:
        systems: who takes part.
        rounds: how often each has its turn; each round begins with another system.
        turn: measures one system once.
        shown: a result as the line that is printed when it is there.
    """
    results: dict[str, list[T]] = {system.name: [] for system in systems}
    width = max(len(system.name) for system in systems)
    for number in range(rounds):
        for system in _rotated(systems, number):
            result = _taken(turn, system)
            results[system.name].append(result)
            print(f"  round {number + 1}  {system.name:{width}}  {shown(result)}", flush=True)
    return results


def _taken(turn: Callable[[S], T], system: S) -> T:
    """A turn after which nothing of it is left: that is not the next system's to clear away.

    Celery's results talk to their Redis once more when they go, and wait for minutes where it has gone before them.
    """
    try:
        return turn(system)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        gc.collect()


def _rotated(systems: Sequence[S], number: int) -> list[S]:
    start = number % len(systems)
    return [*systems[start:], *systems[:start]]
