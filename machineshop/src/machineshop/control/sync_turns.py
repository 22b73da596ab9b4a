"""Whose volume is copied next, and who gives way: projects take turns, and none has all the room. Pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

MAX_VERSIONS_AT_ONCE = 4
MAX_OF_A_PROJECT = 2
# How long a copy goes on while others wait for room. What it has by then stays.
TURN_SECONDS = 600.0
# What gives way begins no more files, and may end those that it has: within this time, and at this rate on the average.
LAST_FILES_SECONDS = 3600.0
LEAST_BYTES_PER_SECOND = 1024 * 1024
# Before this nobody can tell how fast it is.
RATE_SECONDS = 60.0


class Waiting(NamedTuple):
    """A version that waits to be copied."""

    project: str
    turn: int = -1
    """When it had its last turn, in any unit; below all others: it had none."""


class UnderWay(NamedTuple):
    """A version that is being copied; times in seconds since the epoch."""

    project: str
    begun_at: float
    gives_way: bool = False


def next_up(waiting: Sequence[Waiting], under_way: Sequence[str], turns: Mapping[str, int]) -> int | None:
    """Which one of those that wait begins now; None: there is no room for any.

    Args:
        waiting: What waits, the oldest first.
        under_way: The projects of what is being copied.
        turns: When each project had its last turn, in any unit; those that are not in it had none.
    """
    if len(under_way) >= MAX_VERSIONS_AT_ONCE:
        return None
    may = [
        (under_way.count(each.project), turns.get(each.project, -1), each.turn, at)
        for at, each in enumerate(waiting)
        if _has_room(each.project, under_way)
    ]
    return min(may)[-1] if may else None


def next_to_give_way(
    waiting: Sequence[Waiting], under_way: Sequence[UnderWay], turns: Mapping[str, int], now: float
) -> int | None:
    """Which copy has had its turn, and keeps something from beginning that waits; None: none, or enough give way.

    Args:
        waiting: What waits and found no room.
        under_way: What is being copied.
        turns: As of `next_up`.
        now: Seconds since the epoch.
    """
    if sum(each.gives_way for each in under_way) >= len(waiting):
        return None
    projects = [each.project for each in under_way]
    had_turn = [
        (-projects.count(each.project), each.begun_at, at)
        for at, each in enumerate(under_way)
        if not each.gives_way and now - each.begun_at >= TURN_SECONDS
    ]
    for *_, at in sorted(had_turn):
        if next_up(waiting, projects[:at] + projects[at + 1 :], turns) is not None:
            return at
    return None


def is_cut_off(seconds: float, received_bytes: int) -> bool:
    """Whether a copy that gives way is ended in the middle of its files.

    Args:
        seconds: How long it has given way.
        received_bytes: What has come in this time.
    """
    if seconds < RATE_SECONDS:
        return False
    return seconds >= LAST_FILES_SECONDS or received_bytes < seconds * LEAST_BYTES_PER_SECOND


def _has_room(project: str, under_way: Sequence[str]) -> bool:
    """One more of a project leaves room for another one."""
    count = under_way.count(project)
    return count == 0 or (count < MAX_OF_A_PROJECT and len(under_way) + 1 < MAX_VERSIONS_AT_ONCE)
