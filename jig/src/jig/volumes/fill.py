"""A folder into a version: read it, ask what the platform has of it, upload the rest, and see that it is all there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jig.client import Client
from jig.errors import VolumeError
from jig.live import Steps, transfer_bar
from jig.output import Output
from jig.units import count, size
from jig.volumes.digests import HashedFile, hash_files
from jig.volumes.remote import LINKED, MISSING, Version, Volume
from jig.volumes.source import Source, find_files
from jig.volumes.tally import Tally
from jig.volumes.upload import upload

# A file that is still missing after so many uploads is being replaced by somebody else.
ROUNDS = 3
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Filled:
    """What it took to fill a version.

    Args:
        files_count: how many files it has.
        size_bytes: of all of them.
        sent_files: those that were uploaded.
        sent_bytes: those of them that this run sent.
        resumed_bytes: those of them that an interrupted run had sent.
        linked_files: those that the platform took from an earlier version.
    """

    files_count: int
    size_bytes: int
    sent_files: int = 0
    sent_bytes: int = 0
    resumed_bytes: int = 0
    linked_files: int = 0

    def document(self) -> dict[str, int]:
        """As `--json` prints it."""
        return {
            "files_count": self.files_count,
            "size_bytes": self.size_bytes,
            "sent_files": self.sent_files,
            "sent_bytes": self.sent_bytes,
            "resumed_bytes": self.resumed_bytes,
            "linked_files": self.linked_files,
        }


def read_folder(output: Output, steps: Steps, folder: Path) -> list[HashedFile]:
    """All files of a folder with their digests, by name.

    Raises:
        VolumeError: something in it can be in no volume, or cannot be read.
    """
    source = find_files(folder)
    for sentence in remarks(folder, source):
        output.warn(sentence)
    with transfer_bar(output, "read", source.size_bytes) as progress:
        hashed = hash_files(source.files, progress)
    steps.done("read", f"{count(len(source.files), 'file')}, {size(source.size_bytes)}")
    return hashed


def remarks(folder: Path, source: Source) -> list[str]:
    """What a person should know of a folder that becomes a volume."""
    found = []
    if source.left_out:
        found.append(f"Left out, as they are no files: {some(source.left_out)}.")
    if source.linked_out:
        found.append(f"Links lead out of {folder}: {count(source.linked_out, 'file')} from elsewhere will be uploaded.")
    return found


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def fill(
    client: Client,
    output: Output,
    steps: Steps,
    version: Version,
    volume: Volume,
    files: Sequence[HashedFile],
    tally: Tally,
) -> Filled:
    """Have all these files in an open version; the tally says how far that is.

    Raises:
        VolumeError: one has changed meanwhile, here or there.
        PlatformError: the version is closed, or the platform is away.
    """
    done = Filled(len(files), sum(each.file.size_bytes for each in files))
    by_name = {each.file.name: each for each in files}
    states = version.compare(files, output.note)
    done = replace(done, linked_files=count_of(states, LINKED))
    steps.done("compare", f"{count(count_of(states, MISSING), 'file')} to upload")
    for _ in range(ROUNDS):
        missing = [by_name[name] for name, state in states.items() if state == MISSING]
        if not missing:
            return done
        # Of files with equal bytes one is enough: the platform takes the others from it.
        sent = list({each.sha256: each for each in missing}.values())
        wanted_bytes = sum(each.file.size_bytes for each in sent)
        tally.want(wanted_bytes)
        with transfer_bar(output, "upload", wanted_bytes) as progress:
            upload(client, version, str(volume["id"]), sent, progress, tally, output.note)
        done = replace(
            done,
            sent_files=done.sent_files + len(sent),
            sent_bytes=tally.sent_bytes,
            resumed_bytes=tally.resumed_bytes,
        )
        states |= version.compare(missing)
        done = replace(done, linked_files=count_of(states, LINKED))
        steps.done("upload", f"{count(len(sent), 'file')}, {tally.sent()}")
    raise VolumeError(
        f"{some(missing_names(states))}: still not in {version.name} as they are here.",
        hint="Somebody else uploads into the same volume, or writes to the folder: run the command again afterwards.",
    )


def count_of(states: dict[str, str], state: str) -> int:
    """How many files are in a state."""
    return sum(each == state for each in states.values())


def missing_names(states: dict[str, str]) -> list[str]:
    """The files that the platform has not."""
    return [name for name, state in states.items() if state == MISSING]


def strangers(version: Version, files: Sequence[HashedFile]) -> list[str]:
    """The names of what a version holds beside these files."""
    own = {each.file.name for each in files}
    return [stored.name for stored in version.files() if stored.name not in own]


def is_same(version: Version, files: Sequence[HashedFile]) -> bool:
    """True where a version holds just these files."""
    own = {each.file.name: (each.file.size_bytes, each.sha256) for each in files}
    seen = 0
    for stored in version.files():
        if own.get(stored.name) != (stored.size_bytes, stored.sha256):
            return False
        seen += 1
    return seen == len(own)
