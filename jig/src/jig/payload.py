"""What a job's payload is, from the command line's words. Pure, except that `@file` and `-` are read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jig.errors import UsageError

SHOWN_CHARACTERS = 40


def parse_payload(prompt: str | None, payload: str | None) -> dict[str, Any]:
    """The payload of `--prompt TEXT`, or of `--payload JSON|@FILE|-`.

    Raises:
        UsageError: both or neither are given, or it is not a JSON object.
    """
    if prompt is not None and payload is not None:
        raise UsageError("--prompt and --payload exclude each other.")
    if prompt is None and payload is None:
        raise UsageError("Say which job: one of --prompt TEXT, --payload JSON and, for many, --file FILE.")
    if prompt is not None:
        return {"prompt": prompt}
    return parse_object(read_payload(payload or ""))


def read_payload(payload: str) -> str:
    """The JSON text: `-` reads standard input, `@FILE` a file.

    Raises:
        UsageError: it cannot be read.
    """
    if payload != "-" and not payload.startswith("@"):
        return payload
    try:
        if payload == "-":
            return sys.stdin.buffer.read().decode()
        return Path(payload[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text"
        source = "standard input" if payload == "-" else "that file"
        raise UsageError(f"--payload {payload}: cannot read {source}: {why}.") from error


def parse_object(text: str) -> dict[str, Any]:
    """The object that a JSON text holds.

    Raises:
        UsageError: it is not JSON, or not an object.
    """
    shown = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--payload is not JSON: {error}. It starts with: {shown}") from error
    if not isinstance(value, dict):
        raise UsageError(f'--payload must be a JSON object, like {{"prompt": "hi"}}, not {shown}')
    return value


def files_of(payload: Mapping[str, Any]) -> dict[str, Path]:
    """The top-level values `@PATH`, by their keys. `@@text` is the text `@text`, not a file.

    Raises:
        UsageError: there is no such file.
    """
    named = {key: value[1:] for key, value in payload.items() if isinstance(value, str) and value.startswith("@")}
    files = {key: Path(name) for key, name in named.items() if not name.startswith("@")}
    for key, path in files.items():
        if not path.is_file():
            hint = "Write @@ for a text that starts with @."
            raise UsageError(f'"{key}" names the file {path}, which does not exist.', hint=hint)
    return files


def with_uploads(payload: Mapping[str, Any], upload: Callable[[Path], str]) -> dict[str, Any]:
    """The payload with each file replaced by the URL under which `upload` stored it."""
    urls = {key: upload(path) for key, path in files_of(payload).items()}
    return {key: urls.get(key) or unescaped(value) for key, value in payload.items()}


def unescaped(value: object) -> object:
    """`@@text` as `@text`; anything else as it is."""
    return value[1:] if isinstance(value, str) and value.startswith("@@") else value
