"""Leaves a jig context on this machine, so that `jig list` works as soon as the platform runs.

The file's format is jig's (docs/configuration.md); the two packages share the file, not code.
"""

import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

CONTEXT_NAME = "local"


def leave_context(path: Path, base_url: str, api_key: str) -> bool:
    """Add or renew the context `local`, and make it the current one where there is none; False where it can't be."""
    try:
        contexts = _read(path)
        contexts.setdefault("contexts", {})[CONTEXT_NAME] = {"base_url": base_url, "api_key": api_key}
        contexts["current"] = contexts.get("current") or CONTEXT_NAME
        write_private(path, json.dumps(contexts, indent=2) + "\n")
    except (OSError, ValueError) as error:
        log.warning("context.not_written path=%s error=%s", path, error)
        return False
    return True


def write_private(path: Path, text: str) -> None:
    """Replace a file at once by one that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # made with mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    contexts = json.loads(path.read_text())
    if not isinstance(contexts, dict) or not isinstance(contexts.get("contexts", {}), dict):
        raise ValueError("it is not a jig contexts file")  # noqa: TRY004 - it is the file's content that is wrong
    return contexts
