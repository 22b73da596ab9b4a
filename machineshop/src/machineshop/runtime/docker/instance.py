"""A data directory's own name, by which a server knows its containers and networks on an engine that has others."""

import secrets
from functools import cached_property
from pathlib import Path

from machineshop.errors import RuntimeUnavailable

INSTANCE_FILE = "containers.id"


class Instance:
    """The name in `containers.id`, which is there from the first container on.

    Args:
        data_dir: The runtime's folder.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    @cached_property
    def id(self) -> str:
        """The name: that of the first container, once there has been one, else a new one.

        Raises:
            RuntimeUnavailable: The file cannot be read.
        """
        path = self._data_dir / INSTANCE_FILE
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            return secrets.token_hex(8)
        except OSError as error:
            raise RuntimeUnavailable(message=f"The file {path} cannot be used: {error}.") from error

    def keep(self) -> None:
        """Write it down, unless it is: there is about to be a container."""
        if not has_had_containers(self._data_dir):
            written = self._data_dir / f"{INSTANCE_FILE}.new"
            written.write_text(self.id)
            written.replace(self._data_dir / INSTANCE_FILE)


def has_had_containers(data_dir: Path) -> bool:
    """Whether any replica of this runtime's folder ever was to be a container."""
    return (data_dir / INSTANCE_FILE).exists()
