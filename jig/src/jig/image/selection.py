"""Which files of a project go into its image, in the words of a Dockerfile and a .dockerignore."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from jig.bundle.ignore import DEFAULT_PATTERNS, DOCUMENT_PATTERNS, IGNORE_FILE, is_ignored, parse_patterns
from jig.bundle.source import expand
from jig.config.file import PYPROJECT_FILE
from jig.config.model import Config
from jig.errors import ImageError
from jig.image.dockerfile import OWN_FOLDER

GIT_SECONDS_MAX = 60.0  # a repository with very many files, on a slow disk
VERSION_CHARACTERS_MAX = 200
UNPLAIN_PATTERN = re.compile(r"[^A-Za-z0-9._+/-]")


@dataclass(frozen=True)
class Selection:
    """What is taken.

    Args:
        patterns: as in .jigignore, that leave paths out.
        untracked: paths that git does not know, where only what it tracks is taken.
        folders: of `image.copy`, relative; with `files`, all that is copied, unless `is_everything`.
        files: of `image.copy`.
        is_everything: all that is not left out is copied.
    """

    patterns: tuple[str, ...]
    untracked: tuple[str, ...]
    folders: tuple[str, ...]
    files: tuple[str, ...]
    is_everything: bool


def select(config: Config) -> Selection:
    """What the config takes.

    Raises:
        BundleError: `image.copy` names what is not there.
        ImageError: git cannot be asked.
    """
    image, folder = config.image, config.directory
    own = [f"/{image.dockerfile_path}", "/.dockerignore"]
    if config.path.name != PYPROJECT_FILE:
        own.append(f"/{config.path.name}")
    jigs = [line for line in DEFAULT_PATTERNS if line.strip("/") != OWN_FOLDER]
    patterns = [*jigs, *(() if image.copy else DOCUMENT_PATTERNS), *own, *ignore_lines(folder)]
    parsed = parse_patterns([*DEFAULT_PATTERNS, *patterns])
    chosen = [path for item in image.copy for path in expand(folder, item)]
    names = sorted({path.relative_to(folder).as_posix() for path in chosen if path != folder})
    names = [name for name in names if not is_ignored(name, parsed, is_directory=(folder / name).is_dir())]
    return Selection(
        patterns=tuple(patterns),
        untracked=tuple(untracked(folder)) if image.auto_include_git else (),
        folders=tuple(name for name in names if (folder / name).is_dir()),
        files=tuple(name for name in names if not (folder / name).is_dir()),
        is_everything=image.auto_include_git or not image.copy or folder in chosen,
    )


def ignore_lines(folder: Path) -> list[str]:
    """The lines of .jigignore."""
    try:
        return (folder / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def untracked(folder: Path) -> list[str]:
    """What git does not track in a folder, whole folders by their names.

    Raises:
        ImageError: git is not there, or the folder is none of its.
    """
    try:
        listed = git(folder, "ls-files", "-z", "--others", "--directory")
    except (OSError, subprocess.SubprocessError) as error:
        message = f"image.auto_include_git is set, but git cannot list the files of {folder}."
        raise ImageError(message) from error
    return [name for name in listed.split("\0") if name and not name.startswith(f"{OWN_FOLDER}/")]


def version(folder: Path) -> str:
    """What git calls the state of a folder: its tag, or how far it is beyond one; empty without git.

    A worker says it in a header, so it is cut to what a header holds.
    """
    try:
        described = git(folder, "describe", "--tags", "--always", "--dirty").strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return UNPLAIN_PATTERN.sub("-", described)[:VERSION_CHARACTERS_MAX]


def git(folder: Path, *words: str) -> str:
    """What git prints about a folder."""
    command = ["git", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, check=True, text=True, timeout=GIT_SECONDS_MAX
    ).stdout
