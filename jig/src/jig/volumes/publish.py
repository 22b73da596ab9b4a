"""A folder becomes a volume, or the next version of one; an interrupted run is gone on with by the same command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jig.client import Client
from jig.errors import ConflictError, JigError, PlatformError, VolumeError, WatchInterruptedError
from jig.live import Steps
from jig.output import Output
from jig.units import count
from jig.volumes import remote
from jig.volumes.digests import HashedFile
from jig.volumes.fill import Filled, fill, is_same, read_folder, some, strangers
from jig.volumes.remote import Version, Volume
from jig.volumes.tally import Tally
from jig.volumes.upload import forget_uploads

FIRST = 0
GOES_ON = "To go on, run the same command again: what has arrived is not sent again."


class Publisher:
    """Makes versions of one volume out of folders.

    Args:
        client: the platform.
        output: where it is said how it goes.
        name: the volume's.
        way_on: what to do where an upload ends too early.
    """

    def __init__(self, client: Client, output: Output, name: str, way_on: str = GOES_ON) -> None:
        self._client = client
        self._output = output
        self._name = name
        self._way_on = way_on
        self._steps = Steps(output)
        self._tally = Tally()

    def create(self, folder: Path) -> dict[str, Any]:
        """A new volume of a folder's files, or the rest of one whose upload was interrupted.

        Returns:
            What `--json` prints.

        Raises:
            VolumeError: there is one of this name that is complete, or holds other files.
            WatchInterruptedError: Ctrl-C.
        """
        files = read_folder(self._output, self._steps, folder)
        version = Version(self._client, self._name, FIRST)
        volume = remote.create(self._client, self._name, remote.uploaded(self._name, FIRST))
        if volume is None:
            volume = self._interrupted(version, files, folder)
        with self._may_go_on():
            filled = fill(self._client, self._output, self._steps, version, volume, files, self._tally)
            if others := strangers(version, files):
                raise self._not_alone(others, folder)
            return self._sealed(version, files, filled)

    def update(self, folder: Path) -> dict[str, Any]:
        """The next version, of a folder's files, unless the current one holds just these.

        Returns:
            What `--json` prints.

        Raises:
            VolumeError: there is no such volume, its upload was never finished, or somebody else made the version.
            WatchInterruptedError: Ctrl-C.
        """
        volume = remote.needed(self._client, self._name)
        remote.check_updatable(volume)
        files = read_folder(self._output, self._steps, folder)
        current = Version(self._client, self._name, int(volume["current_version"]))
        if volume["status"] == "ready" and is_same(current, files):
            return self._sealed(current, files, Filled(len(files), size_of(files)), changed=False)
        version = Version(self._client, self._name, current.number + 1)
        with self._may_go_on():
            filled = fill(self._client, self._output, self._steps, version, volume, files, self._tally)
            for name in strangers(version, files):  # of an interrupted run with another folder
                version.remove(name)
            self._make_current(version, files)
            return self._sealed(version, files, filled)

    def _interrupted(self, version: Version, files: Sequence[HashedFile], folder: Path) -> Volume:
        """The volume of this name, where its first version is still open, and holds nothing but some of these files."""
        volume = remote.get(self._client, self._name)
        is_open = int(volume["current_version"]) == FIRST and volume.get("sealed_at") is None
        if not is_open or (volume.get("content") or {}).get("origin"):
            hint = f"To give it a new version: jig volumes update {self._name} {folder}"
            raise VolumeError(f"The volume {self._name} already exists.", hint=hint)
        if others := strangers(version, files):
            raise self._not_alone(others, folder)
        self._output.note(f"{self._name} is there and still open: its upload goes on.")
        return volume

    def _not_alone(self, others: Sequence[str], folder: Path) -> VolumeError:
        return VolumeError(
            f"The volume {self._name} already exists, is open, and holds what {folder} does not: {some(others)}.",
            hint="If somebody else uploads it, leave it to them. To begin anew, delete it first:\n"
            f"  jig volumes delete {self._name}",
        )

    def _make_current(self, version: Version, files: Sequence[HashedFile]) -> None:
        """Make the version the volume's current one.

        Raises:
            VolumeError: somebody else was faster.
        """
        try:
            remote.change(self._client, self._name, remote.uploaded(self._name, version.number))
        except PlatformError as error:
            current = int(remote.get(self._client, self._name)["current_version"])
            if current < version.number:
                raise
            if current > version.number or not is_same(version, files):  # else only the answer was lost
                message = f"Somebody else has made version {version.number} of {self._name} meanwhile."
                raise VolumeError(message, hint="Run the same command again to make another one.") from error

    def _sealed(
        self, version: Version, files: Sequence[HashedFile], filled: Filled, *, changed: bool = True
    ) -> dict[str, Any]:
        """Close the version, and look whether it is what it should be: from now on it cannot change."""
        remote.seal(self._client, self._name)
        if not is_same(version, files):
            message = f"Version {version.number} of {self._name} is not what was uploaded."
            hint = (
                f"Somebody else uploaded into it at the same time. Make a new one: jig volumes update {self._name} DIR"
            )
            raise VolumeError(message, hint=hint)
        if changed:
            self._steps.done("sealed", f"version {version.number}, {count(len(files), 'file')}")
        volume = remote.get(self._client, self._name, version.number)
        forget_uploads(self._client, str(volume["id"]))
        return {"volume": volume, "changed": changed, **filled.document(), "seconds": self._steps.rounded()}

    @contextmanager
    def _may_go_on(self) -> Iterator[None]:
        """Whatever ends this block too early says how to go on."""
        try:
            yield
        except KeyboardInterrupt as error:
            raise WatchInterruptedError(f"Interrupted{self._tally.reached()}.", hint=self._way_on) from error
        except JigError as error:
            if not isinstance(error, ConflictError):  # a version that somebody has sealed takes nothing any more
                error.hint = error.hint or self._way_on
            raise


def size_of(files: Sequence[HashedFile]) -> int:
    """The bytes of all of them."""
    return sum(each.file.size_bytes for each in files)
