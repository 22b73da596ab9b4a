"""The worker through which files go."""

from pathlib import Path
from typing import Any

import sprocket


class Passing(sprocket.Sprocket):
    """Looks at a file that comes in, or hands one out."""

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        """The size of `file`, or the file at `path`."""
        if "path" in args:
            return {"file": sprocket.FileOutput(args["path"])}
        return {"bytes": Path(args["file"]).stat().st_size if "file" in args else 0}
