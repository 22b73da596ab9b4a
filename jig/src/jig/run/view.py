"""A run as a person sees it: a progress bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jig.live import timed
from jig.output import Output
from jig.run.report import Progress

LINE_PAUSE_SECONDS = 10.0
BAR_COLUMNS = 30


class RunView:
    """A run on its way.

    Args:
        output: where it is shown.
        total: how many jobs there are.
    """

    def __init__(self, output: Output, total: int) -> None:
        self._output = output
        self._total = total
        self._said_at = 0.0
        self._note = ""
        self._draw: Callable[[Progress, float], None] = self._say

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the view within this block; on a terminal it is gone afterwards."""
        if not self._output.is_live:
            yield
            return
        from rich.console import Console  # noqa: PLC0415  rich takes a while to load
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn  # noqa: PLC0415
        from rich.progress import Progress as Bar  # noqa: PLC0415
        from rich.table import Column  # noqa: PLC0415

        said = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        shown = (TextColumn(" "), BarColumn(BAR_COLUMNS), MofNCompleteColumn(), said)
        with Bar(*shown, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("submitting", total=self._total)
            self._draw = lambda progress, _: bar.update(task, completed=progress.completed, description=progress.line)
            yield

    def update(self, progress: Progress, seconds: float) -> None:
        """Show where the run stands, so many seconds after its start."""
        self._draw(progress, seconds)

    def _say(self, progress: Progress, seconds: float) -> None:
        """A line when there is another reason not to get on, and every few seconds."""
        is_new = progress.note not in ("", self._note)
        if not is_new and seconds - self._said_at < LINE_PAUSE_SECONDS:
            return
        self._said_at, self._note = seconds, progress.note or self._note
        self._output.note(timed(f"{progress.completed:,} of {self._total:,}: {progress.line}", seconds))
