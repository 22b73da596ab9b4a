"""What this data directory's server writes down about itself, for its next start: `server.json`."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from machineshop.contexts import write_private
from machineshop.server import PortTaken, listen

log = logging.getLogger(__name__)


class ServerFile:
    """The file with the last server's process, address and id."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, address: Mapping[str, object]) -> None:
        """Leave the address for the next start, which goes without where the disk is full: the sweep makes room."""
        try:
            write_private(self._path, json.dumps(address) + "\n")
        except OSError as error:
            log.warning("address.not_written path=%s error=%s", self._path, error)

    def last_run(self) -> dict[str, Any]:
        """What this data directory's server wrote down about itself when it started last; it has ended since."""
        try:
            address = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return address if isinstance(address, dict) else {}

    def last_port(self, host: str) -> int:
        """The free port of the last run, where it is still free: replicas that run on know the platform by it."""
        try:
            port = urlsplit(self.last_run().get("base_url") or "").port or 0
            listen(host, port).close()
        except (ValueError, TypeError, AttributeError, PortTaken):
            return 0
        return port
