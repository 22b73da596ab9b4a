"""A worker that takes memory, and writes a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sprocket


class Measured(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        memory = b"x" * args["bytes"]
        sprocket.emit_info({"mine": 1, "sprocket": "not for models"})
        Path(args["path"]).write_bytes(memory[:50_000_000])
        return {"file": sprocket.FileOutput(args["path"])}
