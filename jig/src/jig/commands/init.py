"""`jig init`: a project that can be deployed as it is."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated, NamedTuple

from cyclopts import Parameter

from jig.code import worker_classes
from jig.config.file import JIG_FILE, PYPROJECT_FILE, read_toml, tool_tables
from jig.config.sections import NAME_RULE, nearest_name
from jig.errors import JigError
from jig.options import DEFAULTS, Globals
from jig.session import Session
from jig.starter import WORKER_CLASS, WORKER_FILE, files, jig_toml


class Starter(NamedTuple):
    """What has become of a folder."""

    created: list[str]
    kept: list[str]
    name: str
    """Of the deployment, as a config that was made has it."""
    given_name: str
    """Of the project or its folder."""

    @property
    def config(self) -> str | None:
        """The config that was made, if one was."""
        return next((name for name in (JIG_FILE, PYPROJECT_FILE) if name in self.created), None)


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
        starter = write_starter(folder)
    except OSError as error:
        raise JigError(f"Cannot write to {folder}: {error.strerror}.") from error
    document = {"folder": str(folder.resolve()), "created": starter.created, "kept": starter.kept}
    if starter.config:
        document["name"] = starter.name
    session.output.result(document, report(folder, starter))


def write_starter(folder: Path) -> Starter:
    """Write what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    given, worker = given_name(folder), own_worker(folder) or WORKER_CLASS
    starter = Starter([], [], nearest_name(given), given)
    wanted = files(starter.name, worker)
    if (folder / PYPROJECT_FILE).exists() and not has_config(folder):
        wanted[JIG_FILE] = jig_toml(starter.name, worker)
    for filename, content in wanted.items():
        try:
            with (folder / filename).open("x", encoding="utf-8") as file:
                file.write(content)
        except FileExistsError:
            starter.kept.append(filename)
        else:
            starter.created.append(filename)
    return starter


def has_config(folder: Path) -> bool:
    """True where the folder says what to deploy already."""
    return (folder / JIG_FILE).exists() or "jig" in tool_tables(folder / PYPROJECT_FILE)


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


def name_lines(starter: Starter) -> list[str]:
    """How the deployment is called in the config that was made, where nobody has said so."""
    if starter.config is None or starter.name == starter.given_name:
        return []
    return [
        "",
        f"'{starter.given_name}' cannot be a deployment's name: {NAME_RULE}.",
        f"It is called {starter.name}. For another name change {starter.config} before the first deploy.",
    ]


def worker_lines(folder: Path, starter: Starter) -> list[str]:
    """What to change in the config that was made: it names a class that a worker.py of somebody's own may not have."""
    if starter.config is None or WORKER_FILE not in starter.kept or own_worker(folder):
        return []
    line = f'worker = "worker:{WORKER_CLASS}"'
    return [
        "",
        f"{WORKER_FILE} is your own: write the name of its class for {WORKER_CLASS} in {starter.config}: {line}",
    ]


def report(folder: Path, starter: Starter) -> str:
    """What was done, and what to do next."""
    lines = [f"  created  {name}" for name in starter.created] + [f"  kept     {name}" for name in starter.kept]
    lines += name_lines(starter) + worker_lines(folder, starter)
    enter = "" if folder.resolve() == Path.cwd() else f"cd {quote(str(folder))} && "
    return "\n".join([*lines, "", f'Next: {enter}jig deploy && jig submit --prompt "you" --watch'])
