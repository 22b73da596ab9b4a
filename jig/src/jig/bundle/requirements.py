"""A project's requirements, pinned: from uv.lock, else [project].dependencies, else requirements.txt."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jig.bundle.stated import normal, stated_requirements
from jig.config.file import PYPROJECT_FILE, read_toml, tool_tables
from jig.config.model import ImageConfig
from jig.errors import BundleError
from jig.state import State
from jig.uv import compile_arguments, export_arguments, run_uv

LOCK_FILE = "uv.lock"
REQUIREMENTS_FILE = "requirements.txt"
SPROCKET = "sprocket"  # the platform brings its own
# But what its extras need is the bundle's to bring, pinned like the rest.
SPROCKET_EXTRAS = {"typed": "pydantic>=2.7", "gpu": "nvidia-ml-py>=12"}
EXTRAS_PATTERN = re.compile(r"[^\[;@]*\[([^\]]*)\][^;]*(;.*)?")
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LOCAL_PATTERN = re.compile(r"(-e\s|file:|\.{0,2}/|.*@\s*file:)")


@dataclass(frozen=True)
class Requirements:
    """Pinned requirement lines, and the file that they come from."""

    text: str
    source: str

    @property
    def count(self) -> int:
        """How many packages there are."""
        return len(self.text.splitlines())


def lock(folder: Path, image: ImageConfig, state: State) -> Requirements:
    """The project's pinned requirements. What was pinned before is kept as long as its input is the same.

    Args:
        folder: the project's folder.
        image: its Python, and the extras and groups that are wanted.
        state: the project's memory; it keeps what was pinned.

    Raises:
        BundleError: uv cannot resolve them, one is a path on this machine, or the lock lacks one.
    """
    if (folder / LOCK_FILE).is_file():
        exported = run_uv(export_arguments(image.extras, image.groups), folder)
        check_lock(folder, image)
        return Requirements(checked(without_sprocket(exported.splitlines())), LOCK_FILE)
    wanted, source = wanted_lines(folder, image)
    if not wanted:
        return Requirements("", source)
    key = input_key([*wanted, *uv_settings(folder)], image.python_version)
    pinned = state.pinned_requirements(key)
    if pinned is None:
        printed = run_uv(compile_arguments(image.python_version), folder, "\n".join(wanted) + "\n")
        pinned = checked(without_sprocket(printed.splitlines()))
        state.keep_requirements(key, pinned)
    return Requirements(pinned, source)


def check_lock(folder: Path, image: ImageConfig) -> None:
    """Refuse a uv.lock from before a package was named in pyproject.toml: the replica would start without it.

    Raises:
        BundleError: it names the packages.
    """
    known = locked_names(read_toml(folder / LOCK_FILE))
    stated = {package_name(line) for line in stated_requirements(folder, image.extras, image.groups)}
    missing = sorted(name for name in stated - {SPROCKET} if name and known is not None and name not in known)
    if missing:
        message = f"{LOCK_FILE} is older than {PYPROJECT_FILE}: it lacks {', '.join(missing)}."
        raise BundleError(message, hint="Run `uv lock`, and then the same command again.")


def locked_names(document: Mapping[str, Any]) -> set[str] | None:
    """The packages that a project named when its uv.lock was made; None where it is another project's. Pure."""
    for package in document.get("package", []):
        source = package.get("source", {})
        if "." in (source.get("virtual"), source.get("editable"), source.get("directory")):
            metadata = package.get("metadata", {})
            lists = [metadata.get("requires-dist", []), *metadata.get("requires-dev", {}).values()]
            return {normal(each["name"]) for each in itertools.chain.from_iterable(lists)}
    return None


def wanted_lines(folder: Path, image: ImageConfig) -> tuple[list[str], str]:
    """The requirements as the project states them, with what sprocket's extras need in place of sprocket.

    Returns:
        The lines, and the file that states them.

    Raises:
        BundleError: sprocket or the project has no such extra, or the project no such group.
    """
    lines = _wanted(stated_requirements(folder, image.extras, image.groups))
    if lines:
        return lines, PYPROJECT_FILE
    if (path := folder / REQUIREMENTS_FILE).is_file():
        return _wanted(path.read_text(encoding="utf-8").splitlines()), REQUIREMENTS_FILE
    return [], PYPROJECT_FILE


def uv_settings(folder: Path) -> list[str]:
    """What [tool.uv] says, which has its word in how requirements are resolved: overrides, constraints, sources."""
    path = folder / PYPROJECT_FILE
    settings = tool_tables(path).get("uv") if path.is_file() else None
    return [json.dumps(settings, sort_keys=True, default=str)] if settings else []


def without_sprocket(lines: Iterable[str]) -> list[str]:
    """The lines that require something else than sprocket; comments and empty lines are left out."""
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#") and package_name(line) != SPROCKET]


def needed_by_extras(line: str) -> list[str]:
    """What a requirement of sprocket asks for beyond sprocket: `sprocket[typed]` asks for pydantic.

    Raises:
        BundleError: sprocket has no such extra.
    """
    found = EXTRAS_PATTERN.fullmatch(line) if package_name(line) == SPROCKET else None
    if found is None:
        return []
    extras = [re.sub(r"[-_.]+", "-", extra.strip()).lower() for extra in found[1].split(",") if extra.strip()]
    for extra in extras:
        if extra not in SPROCKET_EXTRAS:
            hint = f"Known: {', '.join(sorted(SPROCKET_EXTRAS))}."
            raise BundleError(f"The requirement `{line}` names an extra that sprocket does not have.", hint=hint)
    marker = f" {found[2]}" if found[2] else ""
    return [f"{SPROCKET_EXTRAS[extra]}{marker}" for extra in extras]


def _wanted(lines: Sequence[str]) -> list[str]:
    return [*without_sprocket(lines), *(needed for line in lines for needed in needed_by_extras(line.strip()))]


def package_name(line: str) -> str | None:
    """The package that a requirement line names, in its normal form."""
    match = NAME_PATTERN.match(line)
    return re.sub(r"[-_.]+", "-", match.group().rstrip("-_.")).lower() if match else None


def checked(lines: Iterable[str]) -> str:
    """The lines as one text.

    Raises:
        BundleError: one is a path, which exists on this machine only.
    """
    lines = list(lines)
    for line in lines:
        if LOCAL_PATTERN.match(line):
            hint = "Move its code into the project's folder, or publish it as a package."
            raise BundleError(f"The requirement `{line}` is a path on this machine: it exists nowhere else.", hint=hint)
    return "".join(f"{line}\n" for line in lines)


def input_key(wanted: Iterable[str], python_version: str) -> str:
    """What the pinned lines depend on, as a digest."""
    return hashlib.sha256("\n".join([python_version, *wanted]).encode()).hexdigest()
