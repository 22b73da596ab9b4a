"""The requirements as a pyproject.toml states them: the project's dependencies, and chosen extras and groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jig.config.file import PYPROJECT_FILE, read_toml
from jig.errors import BundleError

SEPARATORS = re.compile(r"[-_.]+")


def stated_requirements(folder: Path, extras: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The lines of `[project].dependencies`, then those of the extras and groups; none without a pyproject.toml.

    Args:
        folder: the project's folder.
        extras: names in `[project.optional-dependencies]`.
        groups: names in `[dependency-groups]`.

    Raises:
        BundleError: a table is not what it should be, or has no such name.
    """
    document = read_toml(folder / PYPROJECT_FILE) if (folder / PYPROJECT_FILE).is_file() else {}
    project = document.get("project")
    project = project if isinstance(project, dict) else {}
    lines = texts(project.get("dependencies", []), "project.dependencies")
    for extra in extras:
        lines += texts(
            named(project.get("optional-dependencies"), extra, "image.extras", "project.optional-dependencies"),
            f"project.optional-dependencies.{extra}",
        )
    for group in groups:
        lines += group_lines(document.get("dependency-groups"), group, ())
    return lines


def group_lines(tables: object, group: str, within: tuple[str, ...]) -> Iterator[str]:
    """The lines of a group, and of those that it includes."""
    if group in within:
        raise BundleError(f"{PYPROJECT_FILE}: dependency-groups.{group} includes itself.")
    items = named(tables, group, "image.groups", "dependency-groups")
    if not isinstance(items, list):
        raise BundleError(f"{PYPROJECT_FILE}: dependency-groups.{group} must be a list.")
    for item in items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict) and isinstance(item.get("include-group"), str):
            yield from group_lines(tables, item["include-group"], (*within, group))
        else:
            expected = 'strings and {include-group = "..."}'
            raise BundleError(f"{PYPROJECT_FILE}: dependency-groups.{group} must hold {expected}.")


def named(tables: object, name: str, key: str, place: str) -> object:
    """What a table holds under a name, however the name is spelled.

    Raises:
        BundleError: nothing.
    """
    known: Mapping[str, object] = tables if isinstance(tables, dict) else {}
    for each, value in known.items():
        if normal(each) == normal(name):
            return value
    hint = f"Known: {', '.join(known)}." if known else None
    raise BundleError(f"{key} names {name!r}, which [{place}] of {PYPROJECT_FILE} does not have.", hint=hint)


def normal(name: str) -> str:
    """A name as package tools compare it."""
    return SEPARATORS.sub("-", name).lower()


def texts(value: object, key: str) -> list[str]:
    """A list of strings.

    Raises:
        BundleError: it is something else.
    """
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise BundleError(f"{PYPROJECT_FILE}: {key} must be a list of strings.")
    return list(value)
