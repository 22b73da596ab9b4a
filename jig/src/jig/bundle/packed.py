"""Whether what is meant for a volume or a secret lies where a deploy packs it too."""

from __future__ import annotations

from pathlib import Path

from jig.bundle.ignore import DOCUMENT_PATTERNS, IGNORE_FILE, is_ignored
from jig.bundle.source import chosen_paths, read_patterns
from jig.config.model import Config
from jig.errors import BundleError


def packed_path(config: Config, place: Path) -> str | None:
    """The path in the project of a file or folder that a deploy packs; None of one that it leaves out, or never sees.

    Args:
        config: the project's.
        place: an existing file or folder.
    """
    folder, place = config.directory.resolve(), place.resolve()
    if place == folder or not place.is_relative_to(folder):
        return None
    path = place.relative_to(folder)
    patterns = read_patterns(folder, () if config.image.copy else DOCUMENT_PATTERNS)
    above = [each.as_posix() for each in path.parents if each != Path()]
    if any(is_ignored(each, patterns, is_directory=True) for each in above):
        return None
    if is_ignored(path.as_posix(), patterns, is_directory=place.is_dir()) or not is_chosen(config, folder, place):
        return None
    return path.as_posix()


def is_chosen(config: Config, folder: Path, place: Path) -> bool:
    """True where `copy` and `auto_include_git` take some of the place; what is wrong with them, a deploy says."""
    try:
        roots = chosen_paths(folder, config.image)
    except BundleError:
        return False
    return roots is None or any(root.is_relative_to(place) or place.is_relative_to(root) for root in roots)


def leave_out_hint(path: str) -> str:
    """What to do about a path that is packed too."""
    return (
        f"{path} is in the project's folder, so `jig deploy` packs it too. "
        f"To leave it out, write in {IGNORE_FILE}: /{path}"
    )
