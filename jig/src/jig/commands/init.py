"""`jig init`: a project that can be deployed as it is."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter

from jig.code import worker_classes
from jig.config.file import JIG_FILE, PYPROJECT_FILE, read_toml, tool_tables
from jig.config.sections import NAME_PATTERN, slug
from jig.errors import JigError
from jig.options import DEFAULTS, Globals
from jig.session import Session
from jig.starter import WORKER_CLASS, WORKER_FILE, files, jig_toml

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
    name, worker = project_name(folder), own_worker(folder) or WORKER_CLASS
    wanted = files(name, worker)
    if (folder / PYPROJECT_FILE).exists() and not has_config(folder):
        wanted[JIG_FILE] = jig_toml(name, worker)
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
    """The name of the project, else that of its folder, as a deployment's."""
    name = slug(given_name(folder))
    return name if NAME_PATTERN.fullmatch(name) else FALLBACK_NAME


def given_name(folder: Path) -> str:
    """As a pyproject.toml that is there has it, else the folder's."""
    path = folder / PYPROJECT_FILE
    project = read_toml(path).get("project") if path.exists() else None
    name = project.get("name") if isinstance(project, dict) else None
    return name if isinstance(name, str) else folder.resolve().name


def own_worker(folder: Path) -> str | None:
    """The one worker that a worker.py of somebody's own has; None where it has none or several, or is not there."""
    classes = worker_classes(folder / WORKER_FILE)
    return classes[0] if len(classes) == 1 else None


def to_change(folder: Path, created: list[str], kept: list[str]) -> list[str]:
    """What to change in the config that was made: it names a class that a worker.py of somebody's own may not have."""
    config = next((name for name in (JIG_FILE, PYPROJECT_FILE) if name in created), None)
    if config is None or WORKER_FILE not in kept or own_worker(folder):
        return []
    line = f'worker = "worker:{WORKER_CLASS}"'
    return ["", f"{WORKER_FILE} is your own: write the name of its class for {WORKER_CLASS} in {config}: {line}"]


def report(folder: Path, created: list[str], kept: list[str]) -> str:
    """What was done, and what to do next."""
    lines = [f"  created  {name}" for name in created] + [f"  kept     {name}" for name in kept]
    if created and not NAME_PATTERN.fullmatch(slug(given_name(folder))):
        lines += ["", f"'{given_name(folder)}' cannot be a deployment's name: the project is {FALLBACK_NAME}."]
    lines += to_change(folder, created, kept)
    enter = "" if folder.resolve() == Path.cwd() else f"cd {quote(str(folder))} && "
    return "\n".join([*lines, "", f'Next: {enter}jig deploy && jig submit --prompt "you" --watch'])
