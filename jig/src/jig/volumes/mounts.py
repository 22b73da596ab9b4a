"""The volumes that a deployment is about to mount: whether each can be, and in which version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jig.client import Client
from jig.config.model import Config, VolumeMount
from jig.errors import NotFoundError, VolumeError
from jig.volumes.remote import OPEN, PENDING, Volume, needed, state_of, unfinished
from jig.volumes.view import version_of


@dataclass(frozen=True)
class Mounted:
    """One mount of the config, with what the platform will make of it.

    Args:
        mount: of the config.
        version: that the replicas will see.
        current: the volume's latest version.
    """

    mount: VolumeMount
    version: int
    current: int

    @property
    def is_behind(self) -> bool:
        """True where there is a later version, and the config does not say that it wants none."""
        return self.mount.version is None and self.version < self.current

    def text(self) -> str:
        """`words version 3, the latest`; where there is no choice the version alone."""
        name = f"{self.mount.name} version {self.version}"
        if self.mount.version is not None or self.current == 0:
            return name
        return f"{name}, as before" if self.is_behind else f"{name}, the latest"


def find_mounts(client: Client, config: Config) -> list[Mounted]:
    """What a deploy of this config will mount.

    Raises:
        VolumeError: a volume does not exist, or not in that version, or is not all there.
    """
    mounts = config.deploy.volume_mounts
    deployment = deployed(client, config.name) if any(each.version is None for each in mounts) else {}
    found = []
    for mount in mounts:
        volume = needed(client, mount.name)
        version = mounted_version(mount, volume, deployment)
        check(volume, version)
        found.append(Mounted(mount, version, int(volume["current_version"])))
    return found


def deployed(client: Client, name: str) -> Mapping[str, Any]:
    """The deployment as it is now; empty where there is none yet."""
    try:
        deployment: Mapping[str, Any] = client.get(f"/v1/deployments/{name}")
    except NotFoundError:
        return {}
    return deployment


def pin_hint(mounts: Iterable[Mounted]) -> str | None:
    """What to write where replicas stay at an older version than there is; None where none do."""
    behind = [f"version = {each.current} for {each.mount.name}" for each in mounts if each.is_behind]
    return f"To mount the latest, write under deploy.volume_mounts: {', '.join(behind)}" if behind else None


def mounted_version(mount: VolumeMount, volume: Volume, deployment: Mapping[str, Any]) -> int:
    """The config's version, else the one that the deployment has, else the latest: so the platform chooses too."""
    if mount.version is not None:
        return mount.version
    for each in deployment.get("volumes") or []:
        if each.get("name") == mount.name and each.get("version") is not None:
            return int(each["version"])
    return int(volume["current_version"])


def check(volume: Volume, version: int) -> None:
    """Refuse a version that no replica could be started with.

    Raises:
        VolumeError: it does not exist, has no files yet, is not all there, or failed.
    """
    name, current = volume["name"], int(volume["current_version"])
    told = volume if version_of(volume) == version else (volume.get("version_history") or {}).get(str(version))
    if told is None:
        kept = f"versions 0 to {current}" if current else "version 0 alone"
        hint = "Change or remove its `version` under deploy.volume_mounts in the config."
        raise VolumeError(f"The volume {name} has no version {version}: it has {kept}.", hint=hint)
    status = state_of(told)
    look = f"See how it goes: jig volumes describe {name}"
    if status == PENDING:
        raise VolumeError(f"Version {version} of the volume {name} has no files yet.", hint=look)
    if status == OPEN:
        raise unfinished(str(name), version)
    if status == "syncing":
        raise VolumeError(f"Version {version} of the volume {name} is still being fetched.", hint=look)
    if status == "failed":
        why = told.get("status_message") or "The platform gives no reason."
        hint = f"Make another version: jig volumes update {name} SOURCE"
        raise VolumeError(f"Version {version} of the volume {name} cannot be mounted: {why}", hint=hint)
