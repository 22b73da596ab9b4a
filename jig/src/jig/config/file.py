"""Where the config is: `--config`, else jig.toml, else `[tool.jig]` in pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from jig.config.model import Config
from jig.config.sections import read_config, read_name
from jig.config.table import Table
from jig.errors import ConfigError

JIG_FILE = "jig.toml"
PYPROJECT_FILE = "pyproject.toml"
PYPROJECT_PREFIX = "tool.jig"
OTHERS_TABLES = frozenset({"tool", "project", "build-system", "dependency-groups"})  # those of a pyproject.toml


class Contents(NamedTuple):
    """What a file says of a project, unread."""

    values: dict[str, Any]
    prefix: str
    """The name of the table that they stand in; empty where that is the whole file."""
    fallback_name: str
    """Of the project or its folder."""


def find_config(chosen: Path | None, folder: Path | None = None) -> Config:
    """The config in force.

    Args:
        chosen: the file of `--config`, which must exist.
        folder: where to look otherwise; the working directory by default.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    return load_config(found_file(chosen, folder))


def find_name(chosen: Path | None, folder: Path | None = None) -> str:
    """The deployment's name in the config in force, whatever else that says; arguments as `find_config` takes them.

    Where the config has no name, all of it must be right: a misspelt `name` does not make the folder's the name.

    Raises:
        ConfigError: there is no config, or none that can be read, or its name cannot be one.
    """
    path = found_file(chosen, folder)
    values, prefix, fallback_name = contents_of(path.resolve())
    table = Table(values, path.name, prefix)
    return read_name(table, fallback_name) if "name" in table else load_config(path).name


def found_file(chosen: Path | None, folder: Path | None) -> Path:
    """The file that the config is in.

    Raises:
        ConfigError: there is none.
    """
    folder = folder or Path.cwd()
    if path := config_file(chosen, folder):
        return path
    message = f"There is no {JIG_FILE}, and no [tool.jig] in {PYPROJECT_FILE}, in {folder}."
    raise ConfigError(message, hint="Start a project with `jig init`, or name a config with --config.", is_absent=True)


def config_file(chosen: Path | None, folder: Path) -> Path | None:
    """The file that the config is in; None where there is none."""
    if chosen:
        return folder / chosen
    if (path := folder / JIG_FILE).is_file():
        return path
    if (path := folder / PYPROJECT_FILE).is_file() and "jig" in tool_tables(path):
        return path
    return None


def place_of_tables(chosen: Path | None, folder: Path | None = None) -> tuple[str, str]:
    """The file for a table of the config, and what its name has to begin with there: `tool.jig.`, or nothing.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = config_file(chosen, folder or Path.cwd())
    if path is None:
        return JIG_FILE, ""
    return path.name, f"{PYPROJECT_PREFIX}." if is_pyproject(path) else ""


def is_pyproject(path: Path) -> bool:
    """True of a file whose config is its `[tool.jig]`, as of a pyproject.toml; else the config is all of it."""
    return path.name.endswith(PYPROJECT_FILE) or "jig" in tool_tables(path)


def load_config(path: Path) -> Config:
    """The config of one file.

    Raises:
        ConfigError: the file cannot be read, or what it says is wrong.
    """
    path = path.resolve()
    values, prefix, fallback_name = contents_of(path)
    return read_config(values, path, prefix, fallback_name)


def contents_of(path: Path) -> Contents:
    """What has a `[tool.jig]`, as a pyproject.toml has, keeps the config there; else it is the whole file.

    Raises:
        ConfigError: the file cannot be read, or there is a config in both places.
    """
    if not is_pyproject(path):
        return Contents(read_toml(path), "", path.parent.name)
    if not path.name.endswith(PYPROJECT_FILE) and (beside := sorted(read_toml(path).keys() - OTHERS_TABLES)):
        message = f"{path.name} has both a [{PYPROJECT_PREFIX}] and keys of its own beside it: {', '.join(beside)}."
        hint = f"Keep those, and leave `{PYPROJECT_PREFIX}` out of all names; or put all under [{PYPROJECT_PREFIX}]."
        raise ConfigError(message, hint=hint)
    project = read_toml(path).get("project")
    name = project.get("name") if isinstance(project, dict) else None
    values = tool_tables(path).get("jig", {})
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name}: {PYPROJECT_PREFIX} must be a table.")
    return Contents(values, PYPROJECT_PREFIX, name if isinstance(name, str) else path.parent.name)


def tool_tables(path: Path) -> dict[str, Any]:
    """What `[tool]` of a pyproject.toml holds."""
    tool = read_toml(path).get("tool", {})
    return tool if isinstance(tool, dict) else {}


def read_toml(path: Path) -> dict[str, Any]:
    """The parsed file.

    Raises:
        ConfigError: it is not readable, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"There is no config file {path}.") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder, and no config file.", hint="Name a file with --config.") from error
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
