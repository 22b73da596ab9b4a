"""Options that many commands share, as the command line parser reads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True)
class Globals:
    """What every command takes."""

    json: Annotated[bool, Parameter(name="--json", negative=(), show_default=False)] = False
    """Print one JSON document on stdout, errors included."""


@Parameter(name="*")
@dataclass(frozen=True)
class ProjectGlobals(Globals):
    """What every command about this folder's project takes."""

    config: Annotated[Path | None, Parameter(name=("--config", "-c"))] = None
    """Config file. [default: jig.toml, else [tool.jig] in pyproject.toml]"""


DEFAULTS = Globals()
PROJECT_DEFAULTS = ProjectGlobals()

Name = Annotated[str | None, Parameter(name="--name", help="Deployment. [default: the name in the config]")]
"""The deployment that a command is about: `jig status NAME`, `jig status --name NAME`, or the config's."""

NameOption = Annotated[str | None, Parameter(name="--name", help="Deployment. [default: the name in the config]")]
"""The same, of commands that take several words of another kind."""

RequestId = Annotated[str, Parameter(name="--request-id", help="The job's ID, as submit printed it.")]

Yes = Annotated[bool, Parameter(name=("--yes", "-y"), negative=(), show_default=False, help="Do not ask.")]
