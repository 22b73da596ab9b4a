"""What a person sees while an image is built or pushed: on a terminal the last line, elsewhere a line for each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jig.image.tool import is_step
from jig.job import one_line
from jig.output import Output
from jig.units import elapsed

REDRAWS_PER_SECOND = 8
INDENT = "    "


@contextmanager
def shown(output: Output, label: str) -> Iterator[Callable[[str], None]]:
    """Show a builder's lines within this block; yields what to call with each."""
    if not output.is_live:
        yield lambda line: output.note(f"{INDENT}{line}", "dim") if is_step(line) else None
        return
    from rich.console import Console  # noqa: PLC0415  rich takes a while to load
    from rich.live import Live  # noqa: PLC0415
    from rich.spinner import Spinner  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    spinner, started_at, step = Spinner("dots"), time.monotonic(), ""

    def show(line: str) -> None:
        nonlocal step
        step = line if is_step(line) else step
        said = " | ".join(part for part in (label, elapsed(time.monotonic() - started_at), step, line) if part)
        if line == step:
            said = said.removesuffix(f" | {line}")
        spinner.update(text=Text(one_line(said), no_wrap=True, overflow="ellipsis"))

    show("")
    console = Console(stderr=True, highlight=False)
    with Live(spinner, console=console, refresh_per_second=REDRAWS_PER_SECOND, transient=True):
        yield show
