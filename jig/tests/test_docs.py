"""docs/cli.md and the code say the same: commands, options, config keys."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from jig.cli import COMMANDS, GROUPS, build_app
from jig.config import model
from jig.options import ProjectGlobals

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
PATHS: list[tuple[str, ...]] = [(name,) for name, _, _ in COMMANDS] + [
    (group, name) for group, (_, commands) in GROUPS.items() for name, _, _ in commands
]
SECTIONS: dict[str, type[model.ImageConfig | model.DeployConfig | model.ExperimentalConfig]] = {
    "[tool.jig.image]": model.ImageConfig,
    "[tool.jig.deploy]": model.DeployConfig,
    "[tool.jig.experimental]": model.ExperimentalConfig,
}


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    text = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert text, f"docs/cli.md has no section {title}"
    return text.group(1)


def first_cells(text: str) -> set[str]:
    """What the first column of the tables names in backticks."""
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for cell in rows for name in re.findall(r"`([^`]+)`", cell)}


def options_of(path: tuple[str, ...]) -> set[str]:
    """The options of a command, without those that many commands share."""
    shared = {f"--{field.name}" for field in fields(ProjectGlobals)}
    return {name for names in names_of(path) if not shared & set(names) for name in names if name.startswith("-")}


def names_of(path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The options of a command, each with all its names."""
    command = build_app()
    for name in path:
        command = command[name]
    return [each.names for each in command.assemble_argument_collection()]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_is_documented_with_its_options(path: tuple[str, ...]) -> None:
    assert first_cells(section(f"jig {' '.join(path)}")) == options_of(path)


def test_no_command_is_documented_that_does_not_exist() -> None:
    documented = re.findall(r"^### jig (.+)$", DOCS.read_text(), re.MULTILINE)
    assert documented == [" ".join(path) for path in PATHS]


def test_shared_options_are_documented_once() -> None:
    assert first_cells(section("What holds for every command")) == {"--config", "-c", "--json"}


def test_commands_about_no_project_take_no_config() -> None:
    without = {path for path in PATHS if ("--config", "-c") not in names_of(path)}
    about_a_project = {"jobs", "revisions", "scale", "secrets", "volumes"}
    grouped = {path for path in PATHS if path[0] in GROUPS and path[0] not in about_a_project}
    assert without == {("init",), ("list",), ("download",), ("audit",), *grouped}


@pytest.mark.parametrize("title", SECTIONS)
def test_every_config_key_is_documented(title: str) -> None:
    assert first_cells(section(title)) == {field.name for field in fields(SECTIONS[title])}
