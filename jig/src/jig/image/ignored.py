"""The .dockerignore of a project: jig's patterns, and the project's own, in a builder's spelling. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jig.image.dockerfile import OWN_FOLDER

GLOB_CHARACTERS = re.compile(r"([*?\[\\])")


def dockerignore(patterns: Iterable[str], left_out: Iterable[str], taken: Iterable[str], own: Iterable[str]) -> str:
    """The text, without its marker. The last line that fits a path wins.

    Args:
        patterns: as in .jigignore.
        left_out: paths that are not taken.
        taken: paths that are, all the same.
        own: paths of jig's own that the build needs.
    """
    lines = [
        *(line for pattern in patterns if (line := docker_pattern(pattern))),
        *(escaped(path) for path in left_out),
        *(f"!{escaped(path)}" for path in taken),
        f"{OWN_FOLDER}/*",
        *(f"!{path}" for path in own),
    ]
    return "\n".join(lines) + "\n"


def docker_pattern(line: str) -> str | None:
    """One pattern: a name fits at any depth for jig, but for a builder only where `**/` says so."""
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    keeps, glob = line.startswith("!"), line.removeprefix("!").rstrip("/")
    is_whole_path, glob = "/" in glob, glob.lstrip("/").replace("[!", "[^")
    return f"{'!' if keeps else ''}{'' if is_whole_path else '**/'}{glob}"


def escaped(path: str) -> str:
    """A path that stands for itself."""
    return GLOB_CHARACTERS.sub(r"\\\1", path.rstrip("/"))
