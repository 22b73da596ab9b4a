"""Models that read files."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import sprocket


class Cramped(sprocket.Sprocket):
    """Is on a machine with hardly any disk."""

    def setup(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"content": Path(args["file"]).read_text()}


class Nested(sprocket.Sprocket):
    """Takes files at any depth."""

    nested_inputs = True

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return {name: [Path(path).read_text() for path in paths] for name, paths in args["files"].items()}
