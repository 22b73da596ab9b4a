"""rclone to an `rclone serve webdav` on this machine, then a sync: that server leaves its writes in memory."""

import shutil
from pathlib import Path

from harness.errors import BenchmarkError
from harness.memory import peak_mib
from harness.processes import Child, accepts_connections, free_port
from volumes_measures.command import run, synced
from volumes_systems.base import Cost

PROGRAM = "rclone"
TRANSFERS = 8  # as many at once as jig has


class RcloneWebdav:
    """See `Store`."""

    name = "rclone webdav"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "rclone"
        self._port = free_port()
        self._child: Child | None = None
        if shutil.which(PROGRAM) is None:
            raise BenchmarkError(f"{PROGRAM} is not installed: apt-get install {PROGRAM}")

    def bring_up(self) -> None:
        """See `Store`."""
        (self._folder / "data").mkdir(parents=True)
        argv = [PROGRAM, "serve", "webdav", "--addr", f"127.0.0.1:{self._port}", str(self._folder / "data")]
        self._child = Child(PROGRAM, [*argv, *self._no_config], self._folder)
        self._child.wait_until(lambda: accepts_connections(self._port), "listening")

    def take_down(self) -> None:
        """See `Store`."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def upload(self, folder: Path) -> Cost:
        """See `Store`."""
        return self._copy(folder, self._remote)

    def download(self, folder: Path) -> Cost:
        """See `Store`."""
        return self._copy(self._remote, folder)

    @property
    def _remote(self) -> str:
        return f":webdav,url='http://127.0.0.1:{self._port}':"

    @property
    def _no_config(self) -> list[str]:
        return ["--config", "/dev/null"]

    def _copy(self, source: Path | str, target: Path | str) -> Cost:
        assert self._child is not None, "it was brought up"
        before = peak_mib(self._child.pid)
        options = ["--transfers", TRANSFERS, "--checkers", TRANSFERS, *self._no_config]
        seconds, client_mib = run([PROGRAM, "copy", *options, source, target], self._folder)
        return Cost(seconds + synced(), client_mib, peak_mib(self._child.pid) - before)
