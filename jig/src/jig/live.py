"""What a person sees while something takes time: redrawn on a terminal, one line a change elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from unicodedata import east_asian_width

from jig.job import Job, one_line, shown_value
from jig.output import Output
from jig.tracking import Replica, Tracking, describe
from jig.units import coarse, count, elapsed, settled, size

STATE_COLOURS = {"ready": "green", "starting": "cyan", "waiting": "yellow", "terminated": "red"}
REDRAWS_PER_SECOND = 8
CLEAR_LINE = "\r\033[2K"
# Where nothing is redrawn: how often a line comes that has been said before, but for its numbers.
WAITING_PAUSE_SECONDS = 10.0
PROGRESS_PAUSE_SECONDS = 1.0
# A model that streams words gives many between two looks.
CHUNKS_AT_ONCE = 20


class TrackingView:
    """A rollout as it comes up.

    Args:
        output: where it is shown.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._said: dict[str, set[str]] = {}
        self._draw: Callable[[Tracking, float], None] = self._say_changes

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the view within this block; on a terminal it is gone afterwards."""
        if not self._output.is_live:
            yield
            return
        from rich.console import Console, Group  # noqa: PLC0415  rich takes a while to load
        from rich.live import Live  # noqa: PLC0415
        from rich.spinner import Spinner  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        spinner = Spinner("dots")

        def draw(tracking: Tracking, now: float) -> None:
            table = Table.grid(padding=(0, 2))
            for _ in range(3):
                table.add_column(no_wrap=True)
            table.add_column(no_wrap=True, overflow="ellipsis")
            for replica in tracking.replicas:
                state = Text(replica.state, style=STATE_COLOURS.get(replica.state, ""))
                why = "" if replica.is_ready else replica.message or replica.reason
                table.add_row(Text(f"  {replica.id}"), state, Text(coarse(now - replica.since)), Text(why, style="dim"))
            spinner.update(text=Text(headline(tracking, now), no_wrap=True, overflow="ellipsis"))
            live.update(Group(spinner, table))

        console = Console(stderr=True, highlight=False)
        with Live(spinner, console=console, refresh_per_second=REDRAWS_PER_SECOND, transient=True) as live:
            self._draw = draw
            yield

    def update(self, tracking: Tracking, now: float) -> None:
        """Show what is known now."""
        self._draw(tracking, now)

    def _say_changes(self, tracking: Tracking, now: float) -> None:  # noqa: ARG002  lines carry no times
        for replica in tracking.replicas:
            if replica.id == tracking.failed_replica:
                continue  # the error says it
            line, said = describe(replica), self._said.setdefault(replica.id, set())
            if not is_repeated(replica, said):
                self._output.note(f"  replica {replica.id}: {line}")
            said.add(settled(line))


class JobView:
    """A watched job: on a terminal one line for each state, redrawn; elsewhere a line for each change worth one.

    Args:
        output: where it is shown.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self._state = self._said = ""
        self._said_at = 0.0
        self._known: set[str] = set()  # the lines of this state that have been said in full
        self._is_open = False
        self._attempt = self._chunks_shown = 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the job within this block; its last line stays."""
        try:
            yield
        finally:
            self._close()

    def update(self, state: str, line: str, seconds: float, brief: str | None = None) -> None:
        """Show the job as it is now.

        Args:
            state: the job's.
            line: all that there is to say.
            seconds: since the first look.
            brief: what is left to say where nothing is redrawn and the line has been said, but for its numbers.
        """
        is_new = state != self._state
        self._state = state
        if self.output.is_live:
            if is_new:
                self._close()
            self._redraw(timed(one_line(line), seconds))
            return
        if is_new:
            self._known.clear()
        if settled(line) in self._known:
            line = brief or line
            if line == self._said or not self._is_time(seconds):
                return
        self._known.add(settled(line))
        self.output.note(timed(one_line(line), seconds))
        self._said, self._said_at = line, seconds

    def chunks(self, job: Job) -> None:
        """Show what the model has given of the outputs since the last time, a line each; an attempt begins anew."""
        if job.get("attempt") != self._attempt:
            self._attempt, self._chunks_shown = int(job.get("attempt") or 0), 0
        given = job.get("chunks") or (self._chunks_shown and chunks_of_result(job)) or []
        new = given[self._chunks_shown :]
        self._chunks_shown += len(new)
        if len(new) > CHUNKS_AT_ONCE:
            self.note(f"    ... {count(len(new) - CHUNKS_AT_ONCE, 'chunk')}")
        for chunk in new[-CHUNKS_AT_ONCE:]:
            self.note(f"    {one_line(shown_value(chunk))}")

    def note(self, text: str) -> None:
        """A sentence between the lines."""
        if self._is_open:
            print(CLEAR_LINE, end="", file=sys.stderr)
        self.output.note(text)

    def _is_time(self, seconds: float) -> bool:
        pause_seconds = WAITING_PAUSE_SECONDS if self._state == "pending" else PROGRESS_PAUSE_SECONDS
        return seconds - self._said_at >= pause_seconds

    def _redraw(self, text: str) -> None:
        shown = cut(text, shutil.get_terminal_size().columns - 1)
        print(f"{CLEAR_LINE}{shown}", end="", file=sys.stderr, flush=True)
        self._is_open = True

    def _close(self) -> None:
        if self._is_open:
            print(file=sys.stderr, flush=True)
        self._is_open = False


def cut(text: str, width: int) -> str:
    """As much of a line as so many columns of a terminal show, where wide letters take two."""
    shown, used = "", 0
    for letter in text:
        used += 2 if east_asian_width(letter) in "WF" else 1
        if used > width:
            return shown[:-1] + "…"
        shown += letter
    return shown


def timed(line: str, seconds: float) -> str:
    """A line of a watch, after the time that it has been going on."""
    return f"  {elapsed(seconds):>8}  {line}"


def is_repeated(replica: Replica, said: Collection[str]) -> bool:
    """True where a replica's state has been said: in other numbers, or with the same reason at its end."""
    line = settled(describe(replica))
    return any(line == earlier or same_reason(earlier, line) for earlier in said)


def same_reason(earlier: str, line: str) -> bool:
    """True where a state with a reason comes back with words before it: `waiting: X`, then `waiting: again, X`."""
    state, _, why = earlier.partition(": ")
    return bool(why) and line.startswith(f"{state}: ") and line.endswith(why)


def headline(tracking: Tracking, now: float) -> str:
    """The line above the replicas."""
    parts = [f"waiting for a replica, {elapsed(now - tracking.started_at)}"]
    if tracking.reason and not tracking.replicas:
        parts.append(tracking.reason)
    if tracking.older:
        parts.append(f"{count(tracking.older, 'replica')} of earlier revisions still there")
    return " | ".join(parts)


@contextmanager
def transfer_bar(output: Output, label: str, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar for bytes on their way; yields what to call with those that have just gone over the wire."""
    if not output.is_live:
        yield lambda count_bytes: None  # noqa: ARG005
        return
    from rich.console import Console  # noqa: PLC0415  rich takes a while to load
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn  # noqa: PLC0415

    from jig.speed import Speed  # noqa: PLC0415

    shown = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(binary_units=True), Speed())
    with Progress(*shown, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label if total_bytes is None else f"{label} {size(total_bytes)}", total=total_bytes)
        yield lambda count_bytes: progress.advance(task, count_bytes)


class Steps:
    """The steps of a deploy, each with the time that it took; a line is said when a step is over.

    Args:
        output: where they are said.
        clock: seconds, never going back.
    """

    def __init__(self, output: Output, clock: Callable[[], float] = time.monotonic) -> None:
        self._output = output
        self._clock = clock
        self._started_at = clock()
        self.seconds: dict[str, float] = {}

    def done(self, name: str, text: str) -> None:
        """The step that has been going on until now is over."""
        now = self._clock()
        self.seconds[name] = now - self._started_at
        self._started_at = now
        self._output.note(f"  {name:<12}  {text:<44}  {elapsed(self.seconds[name]):>10}")

    def rounded(self) -> dict[str, float]:
        """The seconds of each step, as `--json` prints them."""
        return {name: round(value, 3) for name, value in self.seconds.items()}

    @property
    def total_seconds(self) -> float:
        """What all of them took."""
        return sum(self.seconds.values())


def chunks_of_result(job: Job) -> list[Any]:
    """All that the model of a job that is done has given, where its result says so: the last of it may be new."""
    outputs = job.get("outputs")
    chunks = outputs.get("chunks") if isinstance(outputs, dict) else None
    return chunks if isinstance(chunks, list) else []
