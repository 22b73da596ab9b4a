"""Options that many commands share, as the command line parser reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

from jig.units import duration_seconds, duration_text


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


def read_duration(_: object, tokens: Sequence[Token]) -> float:
    """The seconds of an option's value.

    Raises:
        UsageError: it is no duration.
    """
    return duration_seconds(tokens[0].value, str(tokens[0].keyword))


def shown_duration(seconds: float) -> str:
    """A duration that holds by default, as it would be given."""
    return duration_text(round(seconds))


Duration = Annotated[float, Parameter(converter=read_duration)]
"""An option's `30s`, `10m`, `1h30m`, `7d`, or seconds without a unit, as seconds."""

ReadyTimeout = Annotated[
    Duration, Parameter(show_default=shown_duration, help="How long a replica may run without getting ready.")
]
"""Of commands that wait for a rollout."""

Detach = Annotated[bool, Parameter(negative=(), show_default=False, help="Do not wait until it is ready.")]
"""The same commands without the wait."""

DEFAULTS = Globals()
PROJECT_DEFAULTS = ProjectGlobals()

Name = Annotated[str | None, Parameter(name="--name", help="Deployment. [default: the name in the config]")]
"""The deployment that a command is about: `jig status NAME`, `jig status --name NAME`, or the config's."""

NameOption = Annotated[str | None, Parameter(name="--name", help="Deployment. [default: the name in the config]")]
"""The same, of commands that take several words of another kind."""

RequestId = Annotated[str, Parameter(name="--request-id", help="The job's ID, as submit printed it.")]

Yes = Annotated[bool, Parameter(name=("--yes", "-y"), negative=(), show_default=False, help="Do not ask.")]
