"""CNCF distribution, as Debian's `docker-registry` has it: on the local disk, without authentication, caches on."""

import shutil
from pathlib import Path

from harness.errors import BenchmarkError
from harness.processes import Child, accepts_connections, free_port
from registry_systems.base import Access

PROGRAM = "docker-registry"
CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {data}}}
  cache: {{blobdescriptor: inmemory}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class Distribution:
    """A new one for each turn."""

    name = "distribution"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "distribution"
        self._port = free_port()
        self._child: Child | None = None
        if shutil.which(PROGRAM) is None:
            raise BenchmarkError(f"{PROGRAM} is not installed: apt-get install {PROGRAM}")

    @property
    def access(self) -> Access:
        """See `Registry`."""
        return Access(f"127.0.0.1:{self._port}", "", None)

    @property
    def process(self) -> int:
        """See `Registry`."""
        assert self._child is not None, "it was brought up"
        return self._child.pid

    def bring_up(self) -> None:
        """See `Registry`."""
        self._folder.mkdir()
        configuration = self._folder / "config.yml"
        configuration.write_text(CONFIGURATION.format(data=self._folder / "data", port=self._port), encoding="utf-8")
        environment: dict[str, str | None] = {"OTEL_TRACES_EXPORTER": "none"}
        self._child = Child(PROGRAM, [PROGRAM, "serve", str(configuration)], self._folder, environment)
        self._child.wait_until(lambda: accepts_connections(self._port), "listening")

    def take_down(self) -> None:
        """See `Registry`."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def empty(self) -> None:
        """See `Registry`."""
        self.take_down()
        self.bring_up()
