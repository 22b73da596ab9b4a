"""The volumes of a throw-away platform, which begins without any: made of folders that the user names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from jig.client import Client
from jig.config.model import VolumeMount
from jig.errors import DevError, UsageError
from jig.volumes import remote


def read_folders(words: Sequence[str]) -> dict[str, Path]:
    """The folders by their volumes' names, out of NAME=FOLDER each.

    Raises:
        UsageError: one is not so, or its folder is not there.
    """
    folders: dict[str, Path] = {}
    for word in words:
        name, separator, folder = word.partition("=")
        if not separator:
            raise UsageError(f"--volume must be NAME=FOLDER, not {word}.")
        remote.check_name(name)
        if not folder or not Path(folder).is_dir():
            raise UsageError(f"--volume {word} names no folder that there is.")
        folders[name] = Path(folder)
    return folders


def mounted_here(client: Client, mounts: Iterable[VolumeMount]) -> tuple[VolumeMount, ...]:
    """The mounts in the latest version that this platform has: it counts its own, whatever the config says.

    Raises:
        DevError: it has no such volume.
    """
    found = []
    for mount in mounts:
        volume = remote.find(client, mount.name)
        if volume is None:
            raise DevError(
                f"There is no volume {mount.name} on the platform of `jig dev`, which begins without any.",
                hint=f"End this one with Ctrl-C, and name a folder: jig dev --volume {mount.name}=FOLDER",
            )
        found.append(replace(mount, version=int(volume["current_version"])))
    return tuple(found)
