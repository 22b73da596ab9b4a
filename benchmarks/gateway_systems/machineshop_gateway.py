"""Machineshop's gateway: `machineshop serve` as it comes, with a deployment whose one replica is nginx."""

import shutil
from pathlib import Path

from gateway_systems.base import Access
from harness.platform import Platform

UPSTREAM = Path(__file__).parents[1] / "gateway_upstream"
NAME = "upstream"
CONFIG = """\
name = "{name}"

[deploy]
gpu_type = "none"
gpu_count = 0
memory = 1
command = ["sh", "start.sh"]

[deploy.environment_variables]
LARGE_FILE = "{large}"
"""


class MachineshopGateway:
    """The platform, and the replica that the others forward to as well.

    Args:
        folder: where its data goes.
        large: the file that the replica serves.
    """

    name = "Machineshop"

    def __init__(self, folder: Path, large: Path) -> None:
        home = folder / "machineshop"
        home.mkdir()
        self._platform = Platform(home)
        self._platform.wait_until_ready()
        project = folder / NAME
        shutil.copytree(UPSTREAM, project)
        (project / "jig.toml").write_text(CONFIG.format(name=NAME, large=large), encoding="utf-8")
        self._platform.deploy(project)

    @property
    def access(self) -> Access:
        """See `Gateway`."""
        return Access(self._platform.port, f"/v1/deployment-request/{NAME}", self._platform.api_key)

    @property
    def processes(self) -> list[int]:
        """See `Gateway`."""
        return [self._platform.pid]

    def replica_port(self) -> int:
        """Where the replica listens."""
        (replica,) = self._platform.client().get(f"/v1/deployments/{NAME}")["replica_events"].values()
        port: int = replica["replica_port"]
        return port

    def take_down(self) -> None:
        """See `Gateway`."""
        self._platform.stop()
