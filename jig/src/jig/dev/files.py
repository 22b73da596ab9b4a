"""What has changed in a project's folder, by times and sizes: looking is enough, and needs nothing of the system."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from jig.bundle.pack import contents
from jig.code import syntax_error
from jig.config.model import Config
from jig.errors import DevError

Snapshot = Mapping[str, tuple[int, int]]
"""The files that a deploy would take, and the config, each with its time of change in nanoseconds and its size."""


def look(config: Config) -> Snapshot:
    """The files as they are now.

    Raises:
        BundleError: the project cannot be packed.
    """
    own = (config.path.name, "uv.lock", "requirements.txt", ".jigignore")
    names = {entry.path for entry in contents(config) if not os.path.isdir(config.directory / entry.path)} | {*own}  # noqa: PTH112 - a Path for each of 20,000 would be slow
    return {name: stamp for name in sorted(names) if (stamp := stamp_of(config.directory / name)) is not None}


def stamp_of(path: Path) -> tuple[int, int] | None:
    """A file's time of change and size; None where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """The names of files that have come, gone or changed."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def check_syntax(config: Config, names: Iterable[str]) -> None:
    """Find code that cannot run before it takes the place of code that does.

    Raises:
        DevError: a file is no Python. One that only another Python can read is left to the worker's.
    """
    for name in names:
        path = config.directory / name
        if path.suffix == ".py" and path.is_file() and (error := syntax_error(config, name)):
            raise DevError(error)
