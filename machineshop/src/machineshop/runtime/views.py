"""The server's side of `view.py`: how a replica that is a process gets to see the volumes that it mounts.

Each has a mount namespace of its own where this machine allows it. Where it does not, as in most containers and for
users of some desktops, a symbolic link stands at the path for all of them, so that it can only lead to one version at a
time; what stands at the path already is never touched.
"""

import asyncio
import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from machineshop.runtime.engine import Mount, PreparationFailed
from machineshop.runtime.planner import Phase
from machineshop.runtime.record import Record
from machineshop.runtime.volumes.base import FAILED_MOUNT

TRIAL_SECONDS = 30.0
TRIAL_PATH = "/machineshop-trial"
MEND = (
    "Choose another mount_path, in a folder that the server's user may write to, or use container images on "
    "--runtime docker; docs/volumes.md says what would give each replica a view of its own."
)

logger = logging.getLogger(__name__)


class Views:
    """The views of the replicas on this machine.

    Args:
        own_folders: Links that lead into it are ours.
    """

    def __init__(self, own_folders: Path) -> None:
        self._own_folders = own_folders
        self._trial: asyncio.Task[str | None] | None = None
        self._running: dict[str, Record] = {}
        """The replicas that see volumes, by their ids."""

    def note(self, record: Record) -> None:
        """Take a state of a replica; the links of one that has ended go, unless others have them too."""
        if not record.spec.volumes:
            return
        if record.phase in (Phase.STARTING, Phase.RUNNING, Phase.EXITED):
            self._running[record.id] = record
            return
        self._running.pop(record.id, None)
        if record.phase is Phase.ENDED:
            for volume in record.spec.volumes:
                if not self._shown_at(volume.mount_path) and self._is_ours(Path(volume.mount_path)):
                    Path(volume.mount_path).unlink(missing_ok=True)

    async def show(self, mounts: Sequence[Mount], command: Sequence[str], folder: Path) -> Sequence[str]:
        """Let a replica that is about to start see its volumes; returns the command that does.

        Args:
            mounts: What it is to see.
            command: What it runs.
            folder: An empty folder of its own, which need not be there yet.

        Raises:
            PreparationFailed: One of the paths is taken.
        """
        if not mounts:
            return command
        why_not = await self._why_no_namespaces()
        _check_apart(mounts, os.path.realpath if why_not is None else _place)
        if why_not is None:
            await asyncio.to_thread(folder.mkdir, exist_ok=True)
            return view_command(mounts, folder, command)
        for mount in mounts:
            self._link(mount, why_not)
        return command

    async def _why_no_namespaces(self) -> str | None:
        """Found out once, by trying."""
        if self._trial is None:
            self._trial = asyncio.create_task(asyncio.to_thread(try_out), name="try mount namespaces")
        return await asyncio.shield(self._trial)

    def _link(self, mount: Mount, why_not: str) -> None:
        path = Path(mount.path)
        if Path(_place(mount.path)).is_relative_to(self._own_folders.resolve()):
            raise _failed(f"{path} lies in another volume, and {why_not}. {MEND}")
        if path.is_symlink() and path.readlink() == mount.folder:
            return
        if os.path.lexists(path):
            if not self._is_ours(path):
                raise _failed(f"something stands at {path}, and {why_not}. {MEND}")
            if len(self._shown_at(mount.path)) > 1:
                raise _failed(
                    f"{path} leads replicas that run to another volume or version, and {why_not}: they must end first. "
                    f"{MEND}"
                )
            path.unlink()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(mount.folder)
        except OSError as error:
            raise _failed(f"{path} cannot be made ({error.strerror}), and {why_not}. {MEND}") from error

    def _shown_at(self, path: str) -> set[tuple[str, int]]:
        """What running replicas see there, or should, by volume and version: those that are about to start too."""
        volumes = [volume for record in self._running.values() for volume in record.spec.volumes]
        place = _place(path)
        return {(volume.volume_id, volume.version) for volume in volumes if _place(volume.mount_path) == place}

    def _is_ours(self, path: Path) -> bool:
        return path.is_symlink() and path.readlink().is_relative_to(self._own_folders)


def _check_apart(mounts: Iterable[Mount], place_of: Callable[[str], str]) -> None:
    """Refuse paths of which one leads into another; as texts they do not, but there may be links on this machine."""
    places = sorted((Path(place_of(mount.path)), mount.path) for mount in mounts)
    for (place, path), (other, other_path) in itertools.pairwise(places):
        if other.is_relative_to(place):
            raise _failed(
                f"{other_path} is {other} on this machine, which is at or below {path}: mount them beside each other."
            )


def _place(path: str) -> str:
    """Where a path leads, except that its last part may be a link itself."""
    folder, name = os.path.split(path)
    return str(Path(os.path.realpath(folder), name))


def view_command(mounts: Iterable[Mount], staging: Path, command: Sequence[str]) -> list[str]:
    """The command that shows these folders to another one and becomes it."""
    view = {"mounts": [[str(mount.folder), mount.path] for mount in mounts], "staging": str(staging)}
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("view.py")), json.dumps(view), *command]


def try_out() -> str | None:
    """Why replicas cannot have mount namespaces here; None: they can."""
    with TemporaryDirectory(prefix="machineshop-") as folder:
        shown, staging = Path(folder, "shown"), Path(folder, "staging")
        shown.mkdir()
        staging.mkdir()
        command = view_command([Mount(shown, TRIAL_PATH)], staging, ["true"])
        try:
            done = subprocess.run(command, capture_output=True, timeout=TRIAL_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            why = str(error)
        else:
            why = done.stderr.decode(errors="replace").strip()
            if done.returncode == 0:
                return None
    logger.info("replicas get no mount namespaces: %s", why)
    return f"this machine gives replicas no view of their own ({why.rpartition(': ')[2]})"


def _failed(message: str) -> PreparationFailed:
    return PreparationFailed(FAILED_MOUNT, f"A volume cannot be mounted: {message}")
