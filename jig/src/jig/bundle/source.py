"""Which files of a project go into its bundle."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jig.bundle.ignore import DEFAULT_PATTERNS, DOCUMENT_PATTERNS, IGNORE_FILE, Pattern, is_ignored, parse_patterns
from jig.config.model import ImageConfig
from jig.errors import BundleError

FILES_MAX = 20_000  # the platform unpacks no more

NOTHING_HINT = (
    "Write a worker, as `jig init` does, or run an image that is there: `jig deploy --image REFERENCE`, or image under "
    "deploy in the config."
)


@dataclass(frozen=True, order=True)
class Entry:
    """One path of a bundle.

    Args:
        path: relative to the project's folder, with forward slashes.
        mode: its kind and permission bits, as lstat gives them.
        size_bytes: of a file; 0 for folders and links.
        link: where a symlink points, else None.
        content: what is packed in place of the file's bytes, or None.
    """

    path: str
    mode: int
    size_bytes: int = 0
    link: str | None = None
    content: bytes | None = None

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return stat.S_ISREG(self.mode)


def collect(folder: Path, image: ImageConfig, left_out: Sequence[str] = ()) -> list[Entry]:
    """The project's files, folders and links, sorted by path.

    Args:
        folder: the project's folder.
        image: its `copy` and `auto_include_git` limit what is taken.
        left_out: patterns beside jig's own; those of the project come after them.

    Raises:
        BundleError: there are too many files, a link leaves the project, or a path of `copy` does not exist.
    """
    patterns = read_patterns(folder, [*(() if image.copy else DOCUMENT_PATTERNS), *left_out])
    roots = chosen_paths(folder, image)
    found: dict[str, Entry] = {}
    for root in [folder] if roots is None else roots:
        for entry in walk(folder, root, patterns):
            found[entry.path] = entry
            if len(found) > FILES_MAX:
                raise too_many_files(found)
    if not any(entry.is_file for entry in found.values()):
        message = f"There is nothing to deploy in {folder} but the config and what is always left out."
        raise BundleError(message, hint=NOTHING_HINT)
    return sorted(with_parents(folder, found).values())


def read_patterns(folder: Path, left_out: Sequence[str]) -> list[Pattern]:
    """Jig's own patterns, then the caller's, then the project's."""
    try:
        lines = (folder / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    return parse_patterns([*DEFAULT_PATTERNS, *left_out, *lines])


def chosen_paths(folder: Path, image: ImageConfig) -> list[Path] | None:
    """The paths that `copy` and `auto_include_git` name, or None for everything."""
    if not image.copy and not image.auto_include_git:
        return None
    paths = [path for pattern in image.copy for path in expand(folder, pattern)]
    return paths + (git_files(folder) if image.auto_include_git else [])


def expand(folder: Path, pattern: str) -> list[Path]:
    """The paths that one item of `image.copy` names: a path, or a glob."""
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise BundleError(f"image.copy names {pattern!r}, which is outside the project.")
    exact = folder / pattern
    paths = [exact] if exact.exists() or exact.is_symlink() else sorted(folder.glob(pattern))
    if not paths:
        raise BundleError(f"image.copy names {pattern!r}, which does not exist in {folder}.")
    return paths


def git_files(folder: Path) -> list[Path]:
    """What git tracks in the project's folder."""
    command = ["git", "ls-files", "-z"]
    try:
        listed = subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BundleError(f"image.auto_include_git is set, but git cannot list the files of {folder}.") from error
    return [folder / name for name in listed.split("\0") if name and (folder / name).exists()]


def walk(folder: Path, root: Path, patterns: list[Pattern]) -> Iterator[Entry]:
    """The entries at and below a path, without what is ignored."""
    if root != folder:
        path = root.relative_to(folder).as_posix()
        status = root.lstat()
        if is_ignored(path, patterns, is_directory=stat.S_ISDIR(status.st_mode)):
            return
        if entry := describe(folder, root, path, status):
            yield entry
        if not stat.S_ISDIR(status.st_mode):
            return
    try:
        names = sorted(os.listdir(root))  # noqa: PTH208  names alone, in order
    except OSError as error:
        raise BundleError(f"Cannot read {root}: {error.strerror}.") from error
    for name in names:
        yield from walk(folder, root / name, patterns)


def describe(folder: Path, place: Path, path: str, status: os.stat_result) -> Entry | None:
    """The entry of one path; None for sockets, pipes and devices, which have no bytes to take along."""
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, status.st_mode, link=checked_link(folder, place))
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, status.st_mode)
    return Entry(path, status.st_mode, status.st_size) if stat.S_ISREG(status.st_mode) else None


def checked_link(folder: Path, place: Path) -> str:
    """Where a symlink points, which must be inside the project and relative, or it would break on the way."""
    target = place.readlink()
    inside = Path(os.path.normpath(place.parent / target)).is_relative_to(folder)
    if target.is_absolute() or not inside:
        hint = f"Copy the file, or leave the link out with a line in {IGNORE_FILE}."
        raise BundleError(f"{place.relative_to(folder)} links to {target}, outside the project.", hint=hint)
    return target.as_posix()


def with_parents(folder: Path, found: dict[str, Entry]) -> dict[str, Entry]:
    """The same entries, and the folders above those that `copy` picked."""
    parents = {parent.as_posix() for path in found for parent in Path(path).parents if parent != Path()}
    missing = {path: Entry(path, (folder / path).lstat().st_mode) for path in parents - found.keys()}
    return found | missing


def too_many_files(found: dict[str, Entry]) -> BundleError:
    """The error that names the folder with the most files."""
    counts: dict[str, int] = {}
    for path in found:
        top = path.split("/")[0]
        counts[top] = counts.get(top, 0) + 1
    largest = max(counts, key=lambda top: counts[top])
    hint = f"Most are in {largest}/: leave it out with a line in {IGNORE_FILE}, or list what is needed in image.copy."
    return BundleError(f"The project has more than {FILES_MAX:,} files, the most that a bundle holds.", hint=hint)
