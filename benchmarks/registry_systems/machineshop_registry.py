"""Machineshop's registry: `machineshop serve` as it comes, on SQLite and the local disk."""

import shutil
from pathlib import Path

from harness.platform import Platform
from registry_systems.base import Access


class MachineshopRegistry:
    """A new platform for each turn: what was pushed before cannot be mounted or skipped."""

    name = "Machineshop"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "machineshop"
        self._platform: Platform | None = None

    @property
    def access(self) -> Access:
        """See `Registry`."""
        return Access(f"127.0.0.1:{self._running.port}", "default/", self._running.api_key)

    @property
    def process(self) -> int:
        """See `Registry`."""
        return self._running.pid

    def bring_up(self) -> None:
        """See `Registry`."""
        self._folder.mkdir()
        self._platform = Platform(self._folder)
        self._platform.wait_until_ready()

    def take_down(self) -> None:
        """See `Registry`."""
        if self._platform is not None:
            self._platform.stop()
            self._platform = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def empty(self) -> None:
        """See `Registry`."""
        self.take_down()
        self.bring_up()

    @property
    def _running(self) -> Platform:
        assert self._platform is not None, "it was brought up"
        return self._platform
