"""What is known of a version that is copied: how its turn goes, and how often it has met trouble."""

import asyncio
from typing import NamedTuple

import msgspec

from machineshop.control.sync_turns import is_cut_off

FIRST_PAUSE_SECONDS = 2.0
MAX_PAUSE_SECONDS = 300.0


class Key(NamedTuple):
    """Which version of which volume."""

    volume_id: str
    number: int


class Tries(msgspec.Struct):
    """How often a version has met trouble in a row, and when it is tried again."""

    count: int = 0
    not_before: float = float("-inf")

    def failed(self, now: float) -> None:
        """Wait longer each time."""
        self.not_before = now + min(FIRST_PAUSE_SECONDS * 2.0**self.count, MAX_PAUSE_SECONDS)
        self.count += 1


class Copy(msgspec.Struct):
    """A version that is being copied. Times are in seconds since the epoch."""

    task: asyncio.Task[None]
    project_id: str
    begun_at: float
    received_bytes: int = 0
    gives_way_at: float | None = None
    received_then: int = 0

    @property
    def gives_way(self) -> bool:
        """Whether it begins no more files, since others wait."""
        return self.gives_way_at is not None

    def give_way(self, now: float) -> None:
        """Begin no more files."""
        self.gives_way_at, self.received_then = now, self.received_bytes

    def is_cut_off(self, now: float) -> bool:
        """Whether it is ended in the middle of its files."""
        if self.gives_way_at is None:
            return False
        return is_cut_off(now - self.gives_way_at, self.received_bytes - self.received_then)
