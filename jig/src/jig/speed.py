"""The speed in a progress bar, in the units of its sizes; loaded with rich, and so only where a bar is drawn."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text

from jig.units import size


class Speed(ProgressColumn):
    """How many bytes go over the wire in a second: `187.9 MiB/s`."""

    def render(self, task: Task) -> Text:
        """The speed of the last seconds; nothing while none is known."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{size(speed)}/s", style="progress.data.speed")
