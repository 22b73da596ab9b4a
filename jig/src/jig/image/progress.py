"""What a person sees while an image is built or pushed: on a terminal the last line, elsewhere a line for each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jig.image.tool import is_step
from jig.job import one_line
from jig.output import Output

REDRAWS_PER_SECOND = 8
INDENT = "    "
SPINNER_WIDTH = 3


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

    spinner, step = Spinner("dots"), ""

    def show(line: str) -> None:
        nonlocal step
        step = line if is_step(line) else step
        said = " | ".join(part for part in (label, step, "" if line == step else line) if part)
        text = Text(one_line(said))
        text.truncate(console.width - SPINNER_WIDTH, overflow="ellipsis")
        spinner.update(text=text)

    console = Console(stderr=True, highlight=False)
    show("")
    with Live(spinner, console=console, refresh_per_second=REDRAWS_PER_SECOND, transient=True):
        yield show
