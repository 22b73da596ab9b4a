"""Leaves a jig context on this machine, so that `jig list` works as soon as the platform runs.

The file's format is jig's (docs/configuration.md); the two packages share the file, not code.
"""

import json
import logging
import os
import socket
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

CONTEXT_NAME = "local"
# How long to wait for an answer from the platform of an older context, on this machine as a rule.
LOOK_SECONDS = 0.2


class LeftContext(NamedTuple):
    """A context of this platform, by its name."""

    name: str
    is_current: bool
    """Whether jig uses it where it is told nothing else."""


def leave_context(path: Path, base_url: str, api_key: str, ca: str | None = None) -> LeftContext | None:
    """Add or renew a context for this platform; the current one stays current where its platform still answers.

    It is called `local`; where that is another platform that runs beside this one, `local-PORT`.

    Args:
        path: The contexts file.
        base_url: The platform's.
        api_key: A key of it.
        ca: The authority that signed its certificate, in PEM form, where that is not a known one.

    Returns:
        What it is; None where the file cannot be written.
    """
    try:
        contexts = _read(path)
        known = contexts.setdefault("contexts", {})
        name = _context_name(known, base_url, api_key)
        known[name] = {"base_url": base_url, "api_key": api_key, **({"ca": ca} if ca else {})}
        contexts["current"] = contexts.get("current") or name
        write_private(path, json.dumps(contexts, indent=2) + "\n")
    except (OSError, ValueError, AttributeError) as error:
        log.warning("context.not_written path=%s error=%s", path, error)
        return None
    return LeftContext(name, contexts["current"] == name)


def _context_name(known: dict[str, Any], base_url: str, api_key: str) -> str:
    local = known.get(CONTEXT_NAME)
    if local is None or local.get("api_key") == api_key or not _answers(local.get("base_url", "")):
        return CONTEXT_NAME
    return CONTEXT_NAME if local["base_url"] == base_url else f"{CONTEXT_NAME}-{urlsplit(base_url).port}"


def _answers(base_url: str) -> bool:
    """Whether somebody listens there."""
    address = urlsplit(base_url)
    try:
        socket.create_connection((address.hostname or "", address.port or 80), LOOK_SECONDS).close()
    except (OSError, ValueError):
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
