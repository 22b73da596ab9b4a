"""A plain proxy of aiohttp's client and server."""

import sys
from pathlib import Path

from gateway_systems.base import Access
from harness.processes import Child, accepts_connections, free_port

SCRIPT = Path(__file__).with_name("aiohttp_script.py")


class AiohttpProxy:
    """The script beside this file, in a process of its own.

    Args:
        folder: where it logs.
        replica: the port that it forwards to.
    """

    name = "aiohttp"

    def __init__(self, folder: Path, replica: int) -> None:
        port = free_port()
        self.access = Access(port)
        self._child = Child("aiohttp", [sys.executable, str(SCRIPT), str(port), str(replica)], folder)
        self._child.wait_until(lambda: accepts_connections(port), "listening")

    @property
    def processes(self) -> list[int]:
        """See `Gateway`."""
        return self._child.process_ids()

    def take_down(self) -> None:
        """See `Gateway`."""
        self._child.stop()
