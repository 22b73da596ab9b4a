"""Who is held to the protocol. Another SDK joins with one more `Form`: a command, and a program like `program.py`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Form:
    """A kind of worker.

    Args:
        name: in the tests' names.
        command: what starts it, in this folder. It finds PORT and the platform's variables in its environment.
        env: what else is set; a short heartbeat, for instance, so that the tests need not wait.
        crash_fails_the_job: where a part of it crashes, the rest lives long enough to say so.
        lacks: tests that it is excused from, by name, each with the reason.
    """

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    crash_fails_the_job: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def sprocket(name: str, worker: str, *, crash_fails_the_job: bool = False, **env: str) -> Form:
    """One of sprocket's forms."""
    command = (sys.executable, "-m", "sprocket", f"program:{worker}", "--queue")
    return Form(name, command, {"SPROCKET_HEARTBEAT_SECONDS": "0.1", **env}, crash_fails_the_job)


FORMS = (
    sprocket("sync", "Sync"),
    sprocket("async", "Async"),
    sprocket("process", "Process"),
    sprocket("ranks", "Ranks", crash_fails_the_job=True, WORLD_SIZE="2"),
)
