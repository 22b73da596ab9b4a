"""Where the config is: `--config`, else jig.toml, else `[tool.jig]` in pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from jig.config.model import Config
from jig.config.sections import read_config
from jig.errors import ConfigError

JIG_FILE = "jig.toml"
PYPROJECT_FILE = "pyproject.toml"


def find_config(chosen: Path | None, folder: Path | None = None) -> Config:
    """The config in force.

    Args:
        chosen: the file of `--config`, which must exist.
        folder: where to look otherwise; the working directory by default.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    folder = folder or Path.cwd()
    if chosen:
        return load_config(folder / chosen)
    if (path := folder / JIG_FILE).is_file():
        return load_config(path)
    if (path := folder / PYPROJECT_FILE).is_file() and "jig" in tool_tables(path):
        return load_config(path)
    message = f"There is no {JIG_FILE}, and no [tool.jig] in {PYPROJECT_FILE}, in {folder}."
    raise ConfigError(message, hint="Start a project with `jig init`, or name a config with --config.", is_absent=True)


def load_config(path: Path) -> Config:
    """The config of one file: what has a `[tool.jig]`, as a pyproject.toml has, keeps it there; else it is the whole.

    Raises:
        ConfigError: the file cannot be read, or what it says is wrong.
    """
    path = path.resolve()
    if not path.name.endswith(PYPROJECT_FILE) and "jig" not in tool_tables(path):
        return read_config(read_toml(path), path, "", path.parent.name)
    project = read_toml(path).get("project")
    name = project.get("name") if isinstance(project, dict) else None
    values = tool_tables(path).get("jig", {})
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name}: tool.jig must be a table.")
    return read_config(values, path, "tool.jig", name if isinstance(name, str) else path.parent.name)


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
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
