"""The Dockerfile of a project, out of its config. Pure.

Two stages: the first has compilers and makes /opt/venv, the second is slim and takes it over. What changes seldom comes
first, so that a change of the code alone makes one small layer. PID 1 is an init that passes signals on to the worker
and reaps what its children leave; it comes from the package index like everything else, so that a build needs no other
registry than that of the base images. The worker is not root.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jig.config.model import Config
from jig.errors import ImageError

OWN_FOLDER = ".jig"
REQUIREMENTS = f"{OWN_FOLDER}/requirements.txt"
PYPROJECT = f"{OWN_FOLDER}/pyproject.toml"
WORKDIR = "/app"
VENV = "/opt/venv"
INIT = "dumb-init==1.2.5.post1"
UID = 10001  # a number, which a cluster that refuses root can check
USER = "worker"
OWNER = f"--chown={UID}:{UID}"

PYTHON_PATTERN = re.compile(r"[0-9]+(\.[0-9]+){1,2}([a-z]+[0-9]*)?")
PACKAGE_PATTERN = re.compile(r"[a-z0-9][a-z0-9+.:-]*(=[A-Za-z0-9+.:~-]+)?")
NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Contents:
    """What the build will find in the project's folder.

    Args:
        wheel: the file name of sprocket's wheel below OWN_FOLDER.
        has_requirements: there is a REQUIREMENTS.
        has_pyproject: there is a PYPROJECT, which takes the place of the project's own.
        folders: that are taken whole; empty where everything is.
        files: that are taken beside them.
    """

    wheel: str
    has_requirements: bool = False
    has_pyproject: bool = False
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def dockerfile(config: Config, contents: Contents) -> str:
    """The text, without its marker.

    Raises:
        ImageError: a value of the config has no place in a Dockerfile.
    """
    image = config.image
    if not PYTHON_PATTERN.fullmatch(image.python_version):
        raise ImageError(f'image.python_version must look like "3.11", not {image.python_version!r}.')
    packages = system_packages(image.system_packages)
    parts = [
        f"FROM python:{image.python_version} AS build",
        *packages,
        *environment_lines(contents),
        f"FROM python:{image.python_version}-slim",
        *packages,
        f"RUN useradd --uid {UID} --create-home {USER} && install -d -o {UID} -g {UID} {WORKDIR}",
        f"COPY --from=build {VENV} {VENV}",
        f'ENV PATH="{VENV}/bin:$PATH" PYTHONUNBUFFERED=1',
        *variables(image.environment),
        *(run_line(command) for command in image.run),
        f"WORKDIR {WORKDIR}",
        *copy_lines(contents),
        'ARG VERSION=""',
        "ENV VERSION=$VERSION",
        f"USER {UID}",
        f"ENTRYPOINT {json.dumps([f'{VENV}/bin/dumb-init', '--single-child', '--'])}",
        f"CMD {json.dumps(list(config.command))}",
    ]
    return "\n".join(parts) + "\n"


def environment_lines(contents: Contents) -> list[str]:
    """The virtual environment, a layer for each thing that changes at its own pace."""
    install = f"uv pip install --python {VENV}"
    lines = [
        "ENV UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never",
        f"RUN pip install --no-cache-dir uv && uv venv {VENV} && {install} {INIT}",
    ]
    if contents.has_requirements:
        # They are pinned, so nothing is resolved again: a dependency that the lock leaves out stays out.
        lines += [
            f"COPY {REQUIREMENTS} /tmp/",
            f"RUN {install} --no-deps --requirements /tmp/requirements.txt",
        ]
    wheel = f"{OWN_FOLDER}/{contents.wheel}"
    return [*lines, f"COPY {wheel} /tmp/", f"RUN {install} /tmp/{contents.wheel}", ""]


def system_packages(names: Iterable[str]) -> list[str]:
    """The packages of the operating system; both stages have them, as what is compiled needs them too."""
    names = list(names)
    for name in names:
        if not PACKAGE_PATTERN.fullmatch(name):
            raise ImageError(f"image.system_packages holds {name!r}, which is no package's name.")
    if not names:
        return []
    install = "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends"
    return [f"RUN apt-get update && {install} {shlex.join(names)} && rm -rf /var/lib/apt/lists/*"]


def variables(environment: Mapping[str, str]) -> list[str]:
    """`image.environment`, with values that the builder takes as they are."""
    return [f"ENV {checked_name(name)}={quoted(name, value)}" for name, value in environment.items()]


def checked_name(name: str) -> str:
    """The name of a variable.

    Raises:
        ImageError: it is none.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ImageError(f"image.environment holds {name!r}, which is no variable's name.")
    return name


def quoted(name: str, value: str) -> str:
    """A value between quotes, in which the builder replaces nothing.

    Raises:
        ImageError: it has several lines, for which a Dockerfile has no way.
    """
    if "\n" in value or "\r" in value:
        hint = "Put it into a file of the project, or into deploy.environment_variables."
        raise ImageError(f"image.environment.{name} has several lines, which an image cannot hold.", hint=hint)
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def run_line(command: str) -> str:
    """One of `image.run`, for a shell; one of several lines goes to it as a whole."""
    command = command.strip()
    if "\n" in command or command.endswith("\\"):
        return f"RUN {json.dumps(['/bin/sh', '-ec', command])}"
    return f"RUN {command}"


def copy_lines(contents: Contents) -> list[str]:
    """The project's files: everything that .dockerignore leaves, or what `image.copy` names."""
    is_everything = not (contents.folders or contents.files)
    lines = [f"COPY {OWNER} . ./"] if is_everything else []
    lines += [copy_line([f"{folder}/"], f"{folder}/") for folder in contents.folders]
    by_place: dict[str, list[str]] = {}
    for path in contents.files:
        place, slash, _ = path.rpartition("/")
        by_place.setdefault(place + slash or "./", []).append(path)
    lines += [copy_line(paths, place) for place, paths in by_place.items()]
    if contents.has_pyproject:
        lines.append(copy_line([PYPROJECT], "./"))
    return lines


def copy_line(paths: Iterable[str], place: str) -> str:
    """A COPY of paths in which only an opening bracket would mean something else."""
    return f"COPY {OWNER} {json.dumps([*(path.replace('[', '[[]') for path in paths), place])}"
