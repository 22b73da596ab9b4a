"""What commands share: their options, and how they print."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.table import Table

    from machineshop.services.identity import IdentityService

T = TypeVar("T")

WIDE = 10_000

DataDirOption = Annotated[
    Path | None, Parameter(name="--data-dir", help="Where everything is kept [~/.local/share/machineshop].")
]
JsonOption = Annotated[bool, Parameter(name="--json", negative=(), show_default=False, help="Print JSON.")]


def print_table(table: Table) -> None:
    """What goes to a program or a file is not cut to the width of a terminal, and has no blanks at its lines' ends."""
    from rich.console import Console  # noqa: PLC0415 - as `commands` says

    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=WIDE)
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def variable(name: str) -> str | None:
    """What an environment variable says; None where it is not set, or empty."""
    return os.environ.get(name) or None


def path_of(text: str | None) -> Path | None:
    """The path in a variable, if there is one."""
    return Path(text) if text else None


def base_url_of(text: str | None) -> str | None:
    """A URL without the slash at its end, if there is one."""
    return (text or "").rstrip("/") or None


def with_identity(data_dir: Path | None, work: Callable[[IdentityService], Awaitable[T]]) -> T:
    """Run `work` on the keys and projects of a data directory. Raises as `on_store`."""
    from machineshop.commands.on_store import on_store  # noqa: PLC0415 - as `commands` says
    from machineshop.services.identity import IdentityService  # noqa: PLC0415 - as `commands` says

    return on_store(data_dir, lambda database: work(IdentityService(database)))


def iso(seconds: float | None) -> str | None:
    """A time in UTC, to the second."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
