"""What tells one build's input from another's: the tag under which an image is pushed."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from jig.bundle.ignore import Pattern, is_ignored
from jig.errors import ImageError

TAG_CHARACTERS = 12
CHUNK_BYTES = 1024 * 1024


def fingerprint(folder: Path, names: Iterable[str], facts: Sequence[str], replaced: Mapping[str, bytes]) -> str:
    """A tag for files and facts.

    Args:
        folder: where the files are.
        names: their paths, relative; sorted here.
        facts: what else goes into the build.
        replaced: the bytes that stand for some of the files.

    Raises:
        ImageError: a file cannot be read.
    """
    digest = hashlib.sha256("\0".join(facts).encode())
    for name in sorted(names):
        path = folder / name
        try:
            mode = path.lstat().st_mode
            digest.update(f"\0{name}\0{'x' if mode & 0o100 else '-'}\0".encode())
            if name in replaced:
                digest.update(replaced[name])
            elif stat.S_ISLNK(mode):
                digest.update(os.fsencode(path.readlink()))
            else:
                add_file(digest, path)
        except OSError as error:
            raise ImageError(f"Cannot read {path}: {error.strerror}.") from error
    return digest.hexdigest()[:TAG_CHARACTERS]


def add_file(digest: hashlib._Hash, path: Path) -> None:
    """The bytes of a file, by their own digest, so that nothing depends on where one ends."""
    own = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            own.update(chunk)
    digest.update(own.digest())


def files_in(folder: Path, patterns: Sequence[Pattern], roots: Iterable[str], left_out: Iterable[str]) -> Iterator[str]:
    """The paths of all files and links at and below some paths, relative, without what is ignored.

    Args:
        folder: the project's.
        patterns: what is ignored.
        roots: where to begin, relative; the folder itself is the empty one.
        left_out: paths that are not taken, nor what is below them.
    """
    skipped = {name.rstrip("/") for name in left_out}
    for root in roots:
        yield from walk(folder, root, patterns, skipped)


def walk(folder: Path, name: str, patterns: Sequence[Pattern], skipped: set[str]) -> Iterator[str]:
    """The files at and below one path."""
    path = folder / name
    is_directory = path.is_dir() and not path.is_symlink()
    if name and (name in skipped or is_ignored(name, patterns, is_directory=is_directory)):
        return
    if not is_directory:
        if path.is_file() or path.is_symlink():
            yield name
        return
    try:
        children = sorted(each.name for each in path.iterdir())
    except OSError as error:
        raise ImageError(f"Cannot read {path}: {error.strerror}.") from error
    for child in children:
        yield from walk(folder, f"{name}/{child}" if name else child, patterns, skipped)
