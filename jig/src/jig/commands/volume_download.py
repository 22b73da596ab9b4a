"""`jig volumes download`: a volume's files, onto this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from jig.commands.download import FORCE
from jig.commands.volumes import VolumeName
from jig.errors import JigError, VolumeError, WatchInterruptedError
from jig.live import Steps, transfer_bar
from jig.options import PROJECT_DEFAULTS, ProjectGlobals
from jig.output import Output
from jig.session import Session
from jig.units import count, elapsed, size
from jig.volumes import remote
from jig.volumes.download import Compared, Downloader, compare, list_files
from jig.volumes.folder import Folder, opened_folder
from jig.volumes.remote import StoredFile, Version, Volume
from jig.volumes.tally import Tally
from jig.volumes.view import version_of

FOLDER = "Where to; made if need be. [default: a folder of the volume's name, here]"
VERSION = "Fetch this version. [default: the latest]"
PATH = "Fetch this file alone, or the files in this folder of the volume."
GOES_ON = "To go on, run the same command again: what is there is not fetched again."
NAMES_SHOWN = 5


def download(
    name: VolumeName,
    folder: Annotated[str | None, Parameter(name=("--folder", "--output", "-o"), help=FOLDER)] = None,
    *,
    version: Annotated[NonNegativeInt | None, Parameter(name=("--version", "--volume-version"), help=VERSION)] = None,
    path: Annotated[str, Parameter(name="--path", show_default=False, help=PATH)] = "",
    force: Annotated[bool, Parameter(negative=(), show_default=False, help=FORCE)] = False,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Fetch the files of a volume into a folder. Interrupted, the same command goes on."""
    began_at = time.monotonic()
    session = Session(options)
    remote.check_name(name)
    told = remote.get(session.client, name, version)
    check_whole(session.output, told)
    wanted = Version(session.client, str(told["name"]), version_of(told))
    steps, tally = Steps(session.output), Tally()
    files = listed(session.output, steps, wanted, path.strip("/"))
    with opened_folder(Path(folder or name)) as opened:
        compared = found(session.output, steps, opened, files, force=force)
        with may_go_on(tally):
            fetched(session, steps, wanted, opened, compared, tally)
        opened.sweep(file.name for file in files)
    there, seconds = len(compared.there), time.monotonic() - began_at
    document: dict[str, Any] = {
        "volume": wanted.name,
        "version": wanted.number,
        "folder": str(opened.place.resolve()),
        "files_count": len(files),
        "size_bytes": size_of(files),
        "there_files": there,
        "fetched_files": len(files) - there,
        "fetched_bytes": tally.sent_bytes,
        "resumed_bytes": tally.resumed_bytes,
        "replaced_files": len(compared.others),
        "seconds": steps.rounded(),
    }
    session.output.result(document, summary(opened.place, files, compared, seconds))


def check_whole(output: Output, told: Volume) -> None:
    """Refuse a version that is not all there, and say so of one that may get more files.

    Raises:
        VolumeError: it is still fetched, or has failed.
    """
    name, number, status = told["name"], version_of(told), remote.state_of(told)
    if status == remote.OPEN:
        output.warn(f"Version {number} of the volume {name} is open: files of it may still come, or change.")
    elif status != remote.READY:
        why = f": {message}" if (message := told.get("status_message")) else "."
        hint = f"See how it goes: jig volumes describe {name}"
        raise VolumeError(f"Version {number} of the volume {name} is {status}{why}", hint=hint)


def listed(output: Output, steps: Steps, version: Version, prefix: str) -> list[StoredFile]:
    """What is to be in the folder.

    Raises:
        VolumeError: it is nothing, or no file's name.
    """
    files = list_files(version, prefix, output.note)
    if not files:
        what = f"no file {prefix!r}, and none in a folder of that name" if prefix else "no files"
        hint = f"See what there is: jig volumes describe {version.name} --version {version.number}"
        raise VolumeError(f"Version {version.number} of the volume {version.name} has {what}.", hint=hint)
    steps.done("list", f"{count(len(files), 'file')}, {size(size_of(files))}")
    return files


def found(output: Output, steps: Steps, folder: Folder, files: Sequence[StoredFile], *, force: bool) -> Compared:
    """What the folder has of it; what differs is only to be replaced by force.

    Raises:
        VolumeError: something differs.
    """
    with transfer_bar(output, "compare", None) as progress:
        compared = compare(folder, files, progress)
    if compared.others and not force:
        names = "".join(f"\n  {file.name}" for file in compared.others[:NAMES_SHOWN])
        more = len(compared.others) - NAMES_SHOWN
        rest = f"\n  and {more:,} more" if more > 0 else ""
        raise VolumeError(
            f"{count(len(compared.others), 'file')} in {folder.place} would be overwritten:{names}{rest}",
            hint="Nothing was changed. Overwrite what differs with --force, or name another folder.",
        )
    steps.done("compare", f"{count(len(files) - len(compared.there), 'file')} to fetch")
    return compared


def fetched(session: Session, steps: Steps, version: Version, folder: Folder, compared: Compared, tally: Tally) -> None:
    """Fetch what the folder lacks."""
    files = [*compared.missing, *compared.others]
    if not files:
        return
    wanted_bytes = size_of(files)
    tally.want(wanted_bytes)
    replaced = {file.name for file in compared.others}
    with transfer_bar(session.output, "download", wanted_bytes) as progress:
        Downloader(session.client, version, folder, replaced, progress, tally, session.output.note).run(files)
    there = f", {size(tally.resumed_bytes)} was there already" if tally.resumed_bytes else ""
    steps.done("download", f"{count(len(files), 'file')}, {size(tally.sent_bytes)}{there}")


@contextmanager
def may_go_on(tally: Tally) -> Iterator[None]:
    """Whatever ends this block too early says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise WatchInterruptedError(f"Interrupted{tally.reached()}.", hint=GOES_ON) from error
    except JigError as error:
        error.hint = error.hint or GOES_ON
        raise


def summary(place: Path, files: Sequence[StoredFile], compared: Compared, seconds: float) -> str:
    """What it came to, in a line."""
    there = len(compared.there)
    if there == len(files):
        return f"{place}: {count(there, 'file')}, all of which were there."
    amount = size(size_of(files) - size_of(compared.there))
    rest = f"; {there:,} were there" if there else ""
    return f"{place}: {count(len(files) - there, 'file')}, {amount}, in {elapsed(seconds)}{rest}."


def size_of(files: Sequence[StoredFile]) -> int:
    """The bytes of all of them."""
    return sum(file.size_bytes for file in files)
