"""Which files of a folder go into a volume: all of them, each under its path below the folder.

A symbolic link counts as what it leads to, wherever that is: the snapshots of a model hub are folders of links. Folders
without files are not kept, nor are sockets, pipes and devices, which have no bytes to keep.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from jig.errors import VolumeError

FILES_MAX = 200_000  # the platform takes no more in one version
NAME_CHARACTERS_MAX = 400  # with the longest volume's name before it, it is what the platform stores
# Control characters, separators of lines and paragraphs, and bytes that are no text: no volume holds such a name.
UNSAFE_CATEGORIES = frozenset({"Cc", "Zl", "Zp", "Cs"})


@dataclass(frozen=True)
class SourceFile:
    """One file.

    Args:
        name: in the volume: its path below the folder, with forward slashes.
        place: where its bytes are.
        size_bytes: how many there were when it was found.
        modified_ns: when it was last written, as its file system tells.
    """

    name: str
    place: Path
    size_bytes: int
    modified_ns: int

    def check_unchanged(self, status: os.stat_result) -> None:
        """Compare with what the file is now.

        Raises:
            VolumeError: somebody writes to it.
        """
        if (status.st_size, status.st_mtime_ns) != (self.size_bytes, self.modified_ns):
            message = f"{self.place} has changed while it was read."
            raise VolumeError(message, hint="Run the same command again when nothing writes to the folder any more.")


@dataclass(frozen=True)
class Source:
    """What a folder holds.

    Args:
        files: sorted by name.
        left_out: the names of what has no bytes.
        linked_out: how many files are reached by a link that leaves the folder.
    """

    files: tuple[SourceFile, ...]
    left_out: tuple[str, ...]
    linked_out: int

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class Entry:
    """One thing in a folder, or in a folder below it.

    Args:
        name: its path below the first folder.
        place: where it is.
        status: of what it is, or of what the link leads to.
        is_linked_out: a link on the way to it leaves the first folder.
    """

    name: str
    place: Path
    status: os.stat_result
    is_linked_out: bool


def find_files(folder: Path) -> Source:
    """All files of a folder.

    Raises:
        VolumeError: there are none or too many, a name or a link can be in no volume, or a folder cannot be read.
    """
    files, left_out, linked_out = [], [], 0
    for entry in walk(folder):
        if not stat.S_ISREG(entry.status.st_mode):
            left_out.append(entry.name)
            continue
        check_name(entry)
        files.append(SourceFile(entry.name, entry.place, entry.status.st_size, entry.status.st_mtime_ns))
        linked_out += entry.is_linked_out
        if len(files) > FILES_MAX:
            raise VolumeError(f"{folder} has more than {FILES_MAX:,} files, the most that a volume holds.")
    if not files:
        raise VolumeError(f"There is no file in {folder}.", hint="A volume has at least one.")
    return Source(tuple(sorted(files, key=lambda file: file.name)), tuple(sorted(left_out)), linked_out)


def walk(folder: Path) -> Iterator[Entry]:
    """Everything below a folder that is no folder, links followed."""
    top = folder.resolve()
    yield from walk_below(Entry("", folder, status_of(folder), is_linked_out=False), top, frozenset())


def walk_below(above: Entry, top: Path, ancestors: frozenset[tuple[int, int]]) -> Iterator[Entry]:
    """Everything below one folder; the folders above it, by device and inode, are those that no link may lead to."""
    own = (above.status.st_dev, above.status.st_ino)
    if own in ancestors:
        raise VolumeError(f"{above.place} is a link to a folder that it is in.", hint="Remove the link.")
    try:
        found = sorted(os.scandir(above.place), key=lambda each: each.name)
    except OSError as error:
        raise VolumeError(f"Cannot read {above.place}: {error.strerror}.") from error
    for each in found:
        place = Path(each.path)
        is_linked_out = above.is_linked_out or (each.is_symlink() and not place.resolve().is_relative_to(top))
        entry = Entry(f"{above.name}{each.name}", place, status_of(place), is_linked_out)
        if stat.S_ISDIR(entry.status.st_mode):
            yield from walk_below(replace(entry, name=f"{entry.name}/"), top, ancestors | {own})
        else:
            yield entry


def status_of(place: Path) -> os.stat_result:
    """What is at a place, or where the link there leads.

    Raises:
        VolumeError: it leads nowhere, or nobody may look.
    """
    try:
        return place.stat()
    except OSError as error:
        if place.is_symlink():
            hint = "Remove the link, or bring back what it leads to."
            raise VolumeError(f"{place} is a link that leads nowhere: {place.readlink()}.", hint=hint) from error
        raise VolumeError(f"Cannot read {place}: {error.strerror}.") from error


def check_name(entry: Entry) -> None:
    """Refuse a name that no volume can hold.

    Raises:
        VolumeError: it is too long, or there is a character in it that is none, or that ends lines.
    """
    name = entry.name
    if any(unicodedata.category(letter) in UNSAFE_CATEGORIES for letter in name):
        what = "a control character, a line break, or a byte that is no UTF-8 text"
        raise VolumeError(f"{os.fspath(entry.place)!r} has {what} in its name.", hint="Rename it.")
    if len(name) > NAME_CHARACTERS_MAX:
        message = f"{name[:60]}... has a name of {len(name)} characters, and a volume holds {NAME_CHARACTERS_MAX}."
        raise VolumeError(message, hint="Rename it, or a folder above it.")
