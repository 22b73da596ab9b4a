"""`jig init`: a project that can be deployed as it is."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter

from jig.config.file import JIG_FILE, PYPROJECT_FILE, tool_tables
from jig.config.sections import NAME_PATTERN, slug
from jig.errors import JigError
from jig.options import DEFAULTS, Globals
from jig.session import Session
from jig.starter import files, jig_toml

FALLBACK_NAME = "hello-world"


def init(
    folder: Annotated[
        Path, Parameter(help="Where; made if it does not exist. [default: here]", show_default=False)
    ] = Path(),
    *,
    options: Globals = DEFAULTS,
) -> None:
    """Write a starter project; nothing that exists is overwritten."""
    session = Session(options)
    try:
        created, kept = write_starter(folder)
    except OSError as error:
        raise JigError(f"Cannot write to {folder}: {error.strerror}.") from error
    session.output.result(
        {"folder": str(folder.resolve()), "created": created, "kept": kept}, report(folder, created, kept)
    )


def write_starter(folder: Path) -> tuple[list[str], list[str]]:
    """Write what is missing; return the names of what was made, and of what was there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = project_name(folder)
    wanted = files(name)
    if (folder / PYPROJECT_FILE).exists() and not has_config(folder):
        wanted[JIG_FILE] = jig_toml(name)
    created, kept = [], []
    for filename, content in wanted.items():
        try:
            with (folder / filename).open("x", encoding="utf-8") as file:
                file.write(content)
        except FileExistsError:
            kept.append(filename)
        else:
            created.append(filename)
    return created, kept


def has_config(folder: Path) -> bool:
    """True where the folder says what to deploy already."""
    return (folder / JIG_FILE).exists() or "jig" in tool_tables(folder / PYPROJECT_FILE)


def project_name(folder: Path) -> str:
    """The folder's name as a deployment's."""
    name = slug(folder.resolve().name)
    return name if NAME_PATTERN.fullmatch(name) else FALLBACK_NAME


def report(folder: Path, created: list[str], kept: list[str]) -> str:
    """What was done, and what to do next."""
    lines = [f"  created  {name}" for name in created] + [f"  kept     {name}" for name in kept]
    if created and not NAME_PATTERN.fullmatch(slug(folder.resolve().name)):
        lines += ["", f"'{folder.resolve().name}' cannot be a deployment's name: the project is {FALLBACK_NAME}."]
    enter = "" if folder.resolve() == Path.cwd() else f"cd {quote(str(folder))} && "
    return "\n".join([*lines, "", f'Next: {enter}jig deploy && jig submit --prompt "you" --watch'])
