"""Whose volume is copied next: projects take turns, and none has all the room. Pure."""

from collections.abc import Iterable, Mapping, Sequence

MAX_VERSIONS_AT_ONCE = 4
MAX_OF_A_PROJECT = 2


def next_up(waiting: Iterable[str], under_way: Sequence[str], turns: Mapping[str, int]) -> int | None:
    """Which one of those that wait begins now; None: there is no room for any.

    Args:
        waiting: The projects of what waits, the oldest first.
        under_way: The projects of what is being copied.
        turns: When each project had its last turn, in any unit; those that are not in it had none.
    """
    if len(under_way) >= MAX_VERSIONS_AT_ONCE:
        return None
    may = [(turns.get(project, -1), at) for at, project in enumerate(waiting) if _has_room(project, under_way)]
    return min(may)[1] if may else None


def _has_room(project: str, under_way: Sequence[str]) -> bool:
    return under_way.count(project) < MAX_OF_A_PROJECT
