"""A line of the code changes: until the new image serves, beside what building that image takes alone."""

import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

from harness.platform import Platform
from harness.report import Row, percentile
from harness.turns import in_turns

MORE_BAR_SECONDS = 8.0
NAME = "rebuilt"
WORKER = "import sprocket\n\nclass Worker(sprocket.Sprocket):\n    def predict(self, args):\n        return {}\n"
CONFIG = f"""name = "{NAME}"
worker = "worker:Worker"
gpu = "none"
[image]
run = ["true"]
[deploy]
memory = 1
"""
BUILD_OPTIONS = ("--builder", "docker", "--docker-args", "--network host")

_numbers = count(1)


@dataclass
class Side:
    """What is done after a change."""

    name: str
    command: Literal["build", "deploy"]


def measure(platform: Platform, folder: Path, rounds: int) -> list[Row]:
    """Both commands by turns, each after a change of its own."""
    print("\nAfter a change of one line:")
    project = folder / NAME
    project.mkdir()
    (project / "jig.toml").write_text(CONFIG)
    _change(project)
    platform.jig(project, "deploy", *BUILD_OPTIONS)  # the layers that do not change
    sides = [Side("jig deploy", "deploy"), Side("jig build", "build")]
    seconds = in_turns(sides, rounds, lambda side: _turn(platform, project, side), lambda taken: f"{taken:6.2f} s")
    platform.destroy(NAME)
    ours, peer = (percentile(seconds[side.name], 50) for side in sides)
    return [
        Row("rebuild", "s", "lower", sides[0].name, ours, sides[1].name, peer),
        Row("rebuild_more", "s", "lower", sides[0].name, ours - peer, bar=MORE_BAR_SECONDS),
    ]


def _turn(platform: Platform, project: Path, side: Side) -> float:
    _change(project)
    began = time.monotonic()
    platform.jig(project, side.command, *BUILD_OPTIONS)
    return time.monotonic() - began


def _change(project: Path) -> None:
    (project / "worker.py").write_text(f"{WORKER}\nCHANGED = {next(_numbers)}\n")
