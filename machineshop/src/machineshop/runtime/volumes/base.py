"""What the loop in `local.py` needs of the volumes on this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from machineshop.runtime.base import RevisionSpec, VolumeVersion
from machineshop.runtime.volumes.trees import TreeKey

FAILED_MOUNT = "FailedMount"
"""Kubernetes' word for a volume that a pod waits for in vain."""


class Volumes(Protocol):
    """The volumes on this machine."""

    async def start(self, in_use: Callable[[], frozenset[TreeKey]]) -> None:
        """Begin to keep them within their bound.

        Args:
            in_use: Says which versions replicas have mounted, or wait for; those stay.

        Raises:
            RuntimeUnavailable: The folder for them cannot be used.
        """

    async def make(self, project_id: str, volume: VolumeVersion) -> Path:
        """Bring a version of a project's volume to this machine; quick where it is here already.

        Returns:
            The folder with its files, which never changes.

        Raises:
            PreparationFailed: It cannot be had, or there is no room for it; reason and message say why.
        """
        ...

    def drop_deleted(self) -> None:
        """Remove soon what has been deleted, once no replica has it mounted any more."""

    async def close(self) -> None:
        """Look away; what replicas have mounted stays."""


def trees_of(spec: RevisionSpec) -> list[TreeKey]:
    """The versions of volumes that replicas of a revision mount."""
    return [TreeKey(spec.project_id, volume.volume_id, volume.version) for volume in spec.volumes]
