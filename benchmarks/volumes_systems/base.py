"""A place for folders of files, as its clients use it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Cost:
    """What it took to move a folder.

    Args:
        seconds: until all bytes were on disk.
        client_mib: the client's peak of resident memory.
        server_mib: by how much the server's peak has grown; 0 where there is none.
    """

    seconds: float
    client_mib: float
    server_mib: float


class Store(Protocol):
    """One of those that are measured."""

    name: str

    def bring_up(self) -> None:
        """Start it, with nothing in it."""

    def take_down(self) -> None:
        """End it, and remove all that was in it."""

    def upload(self, folder: Path) -> Cost:
        """Have all files of a folder in it, on disk."""
        ...

    def download(self, folder: Path) -> Cost:
        """Have all its files in a folder that does not exist yet, on disk."""
        ...
