"""Machineshop: `jig volumes create` up, and curl down, 8 files at a time; `machineshop serve` as it comes."""

import shutil
from pathlib import Path
from urllib.parse import quote

from harness.memory import peak_mib
from harness.platform import Platform
from volumes_measures.command import run, synced
from volumes_systems.base import Cost

VOLUME = "bench"
TRANSFERS = 8
PAGE = 10_000


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
        """See `Store`: the list of the files is part of it."""
        platform = self._running
        before = peak_mib(platform.pid)
        listed = platform.client().get(f"/v1/storage/volumes/{VOLUME}/versions/0/files?limit={PAGE}")["data"]
        config = self._folder / "curl.config"
        lines = [f'header = "Authorization: Bearer {platform.api_key}"']
        for each in listed:
            url = f"http://127.0.0.1:{platform.port}/v1/storage/{VOLUME}/0/{quote(each['name'])}"
            lines += [f'url = "{url}"', f'output = "{folder / each["name"]}"']
        config.write_text("\n".join(lines), encoding="utf-8")
        curl = ["curl", "--silent", "--show-error", "--fail", "--create-dirs"]
        argv = [*curl, "--parallel", "--parallel-max", TRANSFERS, "--config", config]
        seconds, client_mib = run(argv, self._folder)
        return Cost(seconds + synced(), client_mib, peak_mib(platform.pid) - before)

    @property
    def _running(self) -> Platform:
        assert self._platform is not None, "it was brought up"
        return self._platform
