"""From what predict returned to what the wire carries: every top-level value as JSON text, or a file to publish."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import OutputError


class FileOutput:
    """A file among the outputs: `return {"image": FileOutput("/tmp/out.png")}`.

    Only at the top level of the outputs. A job from the queue uploads it as `<request id>-<file name>` and puts its
    storage address in its place; `/generate` of a worker without a platform answers with a base64 `data:` URI.
    The file itself stays where it is; removing it is up to you.

    Args:
        path: the file. It must exist when `predict` returns.
    """

    __slots__ = ("path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"FileOutput({str(self.path)!r})"


_to_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

Encoded = dict[str, str | FileOutput]
"""Outputs by their top-level name, each as JSON text or as a file that still has to be published."""


def encode_outputs(value: object) -> Encoded:
    """Check what predict returned, and encode it.

    Raises:
        OutputError: it is not a dict, not JSON, or names a file that is not there.
    """
    if value is None:
        raise OutputError("predict returned None; it must return a dict (did you forget `return`?)")
    if not isinstance(value, Mapping):
        raise OutputError(f"predict returned {_type_name(value)}; it must return a dict")
    return {_key(key): _encode(_key(key), item) for key, item in value.items()}


def join(fragments: Mapping[str, str]) -> str:
    """Put encoded top-level values together as one JSON object."""
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in fragments.items()) + "}"


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise OutputError(f"predict returned a dict with the key {key!r}; the outputs' names must be strings")
    return key


def _encode(name: str, item: Any) -> str | FileOutput:
    if isinstance(item, FileOutput):
        if not item.path.is_file():
            raise OutputError(f"outputs[{name!r}] is a FileOutput, but there is no file at {item.path}")
        return item
    try:
        return _to_json(item)
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(_complaint(f"outputs[{name!r}]", item, depth=0) or f"outputs[{name!r}]: {error}") from None


def _complaint(where: str, item: Any, depth: int) -> str | None:
    """Find the first value that JSON cannot carry, and say where it is and what to do about it."""
    if depth > 100:
        return f"{where} is nested too deeply, or contains itself"
    if isinstance(item, Mapping):
        children = [(f"{where}[{key!r}]", child) for key, child in item.items()]
    elif isinstance(item, (list, tuple)):
        children = [(f"{where}[{index}]", child) for index, child in enumerate(item)]
    else:
        return _complaint_of_leaf(where, item)
    return next((text for path, child in children if (text := _complaint(path, child, depth + 1))), None)


def _complaint_of_leaf(where: str, item: Any) -> str | None:
    if item is None or isinstance(item, (str, bool, int)):
        return None
    if isinstance(item, float):
        return None if math.isfinite(item) else f"{where} is {item}; JSON has no NaN or infinity, return None instead"
    if isinstance(item, FileOutput):
        return f"{where} is a FileOutput; files are taken only at the top level of the outputs"
    if isinstance(item, (bytes, bytearray)):
        return f"{where} is {_type_name(item)}, which is not JSON; return text, base64 or a FileOutput"
    return f"{where} is {_type_name(item)}, which is not JSON; convert it to str, int, float, list or dict"


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
