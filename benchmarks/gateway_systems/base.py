"""A gateway as its callers see it, and the replica behind all of them."""

from dataclasses import dataclass
from typing import Protocol

SMALL = "/small"
LARGE = "/large"


@dataclass(frozen=True)
class Access:
    """How to get through a gateway.

    Args:
        port: of 127.0.0.1.
        prefix: what stands before the replica's own path.
        key: which API key is sent; one that nobody reads where there is no authentication.
    """

    port: int
    prefix: str = ""
    key: str = "nobody-reads-this"


class Gateway(Protocol):
    """One of those that are measured."""

    name: str

    @property
    def access(self) -> Access:
        """How to get through it."""
        ...

    @property
    def processes(self) -> list[int]:
        """Its processes."""
        ...

    def take_down(self) -> None:
        """End it."""


class Direct:
    """No gateway at all.

    Args:
        port: the replica's.
    """

    name = "direct"

    def __init__(self, port: int) -> None:
        self.access = Access(port)
        self.processes: list[int] = []

    def take_down(self) -> None:
        """See `Gateway`."""
