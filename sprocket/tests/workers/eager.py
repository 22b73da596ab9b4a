"""A model whose worker claims jobs ahead, however slow the machine is; the payload's `do` says what predict does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import sprocket
import sprocket.pace

sprocket.pace.AHEAD_SECONDS = 60.0


class Eager(sprocket.Sprocket):
    def setup(self) -> None:
        self.at_work = 0

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        self.at_work += 1
        assert self.at_work == 1
        if args.get("do") == "hold":
            Path(args["until"] + ".waited-for").touch()
            while not Path(args["until"]).exists():
                time.sleep(0.01)
        self.at_work -= 1
        return args
