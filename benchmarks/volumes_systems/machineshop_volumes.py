"""Machineshop: `jig volumes create` up, and `jig volumes download` down; `machineshop serve` as it comes."""

import shutil
from pathlib import Path

from harness.memory import peak_mib
from harness.platform import Platform
from volumes_measures.command import run, synced
from volumes_systems.base import Cost

VOLUME = "bench"


class MachineshopVolumes:
    """See `Store`."""

    name = "Machineshop"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "machineshop"
        self._platform: Platform | None = None

    def bring_up(self) -> None:
        """See `Store`."""
        self._folder.mkdir()
        self._platform = Platform(self._folder)
        self._platform.wait_until_ready()

    def take_down(self) -> None:
        """See `Store`."""
        if self._platform is not None:
            self._platform.stop()
            self._platform = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def upload(self, folder: Path) -> Cost:
        """See `Store`: what the platform acknowledges is on disk."""
        before = peak_mib(self._running.pid)
        argv = [self._running.program("jig"), "volumes", "create", VOLUME, folder]
        environment = {**self._running.environment, "XDG_CACHE_HOME": str(self._folder / "cache")}
        seconds, client_mib = run(argv, self._folder, environment)
        return Cost(seconds, client_mib, peak_mib(self._running.pid) - before)

    def download(self, folder: Path) -> Cost:
        """See `Store`: jig leaves it to the system when its files are on disk."""
        before = peak_mib(self._running.pid)
        argv = [self._running.program("jig"), "volumes", "download", VOLUME, folder]
        seconds, client_mib = run(argv, self._folder, self._running.environment)
        return Cost(seconds + synced(), client_mib, peak_mib(self._running.pid) - before)

    @property
    def _running(self) -> Platform:
        assert self._platform is not None, "it was brought up"
        return self._platform
