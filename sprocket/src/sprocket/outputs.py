"""From what predict returned to what the wire carries: JSON text, with gaps for files that are yet to be published."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PosixPath
from typing import Any

from .errors import OutputError

OUTPUTS_LIMIT_BYTES = 64 * 1024**2
"""Of outputs as JSON, which are held in memory several times over. A platform may well take less than that."""


class FileOutput(PosixPath):
    """A file among the outputs: `return {"image": FileOutput("/tmp/out.png")}`.

    It may stand anywhere in them, in lists and in objects too. A job from the queue uploads it as
    `<request id>-<file name>` and puts its storage address in its place; `/generate` answers with a base64 `data:` URI.
    The file itself stays where it is; removing it is up to you.

    It is a `pathlib.Path`, and can be used as one.

    Args:
        path: the file. It must exist when `predict` returns, and stay as it is until the job has ended.
    """

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        """Let it be the type of a pydantic model's field, where it is taken as it is."""
        from pydantic_core import core_schema  # noqa: PLC0415 - only who uses pydantic has it

        return core_schema.is_instance_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, str]:
        """Say what stands in its place for whoever reads the outputs."""
        return {"type": "string", "format": "uri"}


@dataclass(frozen=True)
class Encoded:
    """Outputs as JSON text in pieces, between which stand the files that have to be published first.

    Attributes:
        pieces: text and files in turn.
        kept: outputs that are not JSON yet, and need not be: a processor sees them first.
    """

    pieces: tuple[str | FileOutput, ...]
    kept: dict[str, Any] | None = None

    @property
    def has_files(self) -> bool:
        """Whether there are files among them: these always stand between two pieces of text."""
        return len(self.pieces) > 1

    @property
    def files(self) -> list[FileOutput]:
        """The files, each of them once."""
        return list(dict.fromkeys(piece for piece in self.pieces if isinstance(piece, FileOutput)))

    def text(self, addresses: Mapping[FileOutput, str] | None = None) -> str:
        """Put the text together, with each file's address in its place; only where there are files are any needed."""
        known = addresses or {}
        return "".join(piece if isinstance(piece, str) else json.dumps(known[piece]) for piece in self.pieces)

    def value(self) -> dict[str, Any]:
        """Give the outputs as Python values again, with the files in their places."""
        if self.kept is not None:
            return self.kept
        word = uuid.uuid4().hex
        marked = (piece if isinstance(piece, str) else json.dumps({word: str(piece)}) for piece in self.pieces)
        found: dict[str, Any] = json.loads(
            "".join(marked), object_hook=lambda item: FileOutput(item[word]) if word in item else item
        )
        return found


def encode_outputs(value: object, source: str = "predict") -> Encoded:
    """Check outputs, and encode them.

    Args:
        value: the outputs.
        source: the method that returned them.

    Raises:
        OutputError: they are not a dict, not JSON, or name a file that is not there.
    """
    if isinstance(value, Encoded):
        return value
    outputs = _checked(value, source)
    gaps = _Gaps()
    try:
        text = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=gaps.make).encode(outputs)
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(_complaint_about(outputs) or f"{source} returned what is not JSON: {error}") from None
    if len(text) > OUTPUTS_LIMIT_BYTES:
        raise OutputError(
            f"{source} returned {len(text)} bytes of JSON, more than {OUTPUTS_LIMIT_BYTES}; "
            "return large values as files, with FileOutput"
        )
    return gaps.cut(text)


def keep_outputs(value: object) -> Encoded:
    """Check what predict returned as far as a processor may not change it, and keep it as it is.

    Raises:
        OutputError: it is not a dict.
    """
    return value if isinstance(value, Encoded) else Encoded((), _checked(value, "predict"))


def _checked(value: object, source: str) -> dict[str, Any]:
    if value is None:
        raise OutputError(f"{source} returned None; it must return a dict (did you forget `return`?)")
    value = _as_dict(value)
    if not isinstance(value, Mapping):
        raise OutputError(f"{source} returned {_type_name(value)}; it must return a dict")
    for key in value:
        if not isinstance(key, str):
            raise OutputError(f"{source} returned a dict with the key {key!r}; the outputs' names must be strings")
    return dict(value)


def encode_chunk(value: object) -> str:
    """Check what a streaming predict gave, and encode it: any JSON value, a pydantic model or a dataclass.

    Raises:
        OutputError: JSON cannot carry it, or it holds a file.
    """
    value = _as_dict(value)
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        reason = _complaint("a chunk", value, 0) or f"a chunk cannot be sent ({error}); files are taken at the end only"
        raise OutputError(reason) from None


def _as_dict(value: object) -> object:
    """Give the fields of a pydantic model or a dataclass as a dict, and anything else as it is."""
    dump = None if isinstance(value, Mapping | type) else getattr(value, "model_dump", None)
    if callable(dump):
        return _with_files(dump(mode="json"), dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value


class _Gaps:
    """Stands in for the files while JSON is made, with words that no model can have written."""

    def __init__(self) -> None:
        self._files: list[FileOutput] = []
        self._word = ""

    def make(self, item: object) -> str:
        if not isinstance(item, FileOutput) or not item.is_file():
            raise TypeError
        self._word = self._word or uuid.uuid4().hex
        self._files.append(item)
        return f"{self._word}-{len(self._files) - 1}"

    def cut(self, text: str) -> Encoded:
        if not self._files:
            return Encoded((text,))
        parts = re.split(f'"{self._word}-([0-9]+)"', text)
        return Encoded(tuple(self._files[int(part)] if at % 2 else part for at, part in enumerate(parts)))


def _with_files(plain: Any, dumped: Any) -> Any:
    """Put the files back into what pydantic has made JSON of, where they have become mere paths."""
    if isinstance(dumped, FileOutput):
        return dumped
    if isinstance(plain, dict) and isinstance(dumped, Mapping):
        return {name: _with_files(value, dumped.get(name)) for name, value in plain.items()}
    if isinstance(plain, list) and isinstance(dumped, list | tuple) and len(plain) == len(dumped):
        return [_with_files(*pair) for pair in zip(plain, dumped, strict=True)]
    return plain


def _complaint_about(outputs: Mapping[str, Any]) -> str | None:
    return next((text for key, item in outputs.items() if (text := _complaint(f"outputs[{key!r}]", item, 0))), None)


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
        return None if item.is_file() else f"{where} is a FileOutput, but there is no file at {item}"
    if isinstance(item, os.PathLike):
        return f"{where} is a path; return FileOutput(path) to hand out the file, or str(path)"
    if isinstance(item, (bytes, bytearray)):
        return f"{where} is {_type_name(item)}, which is not JSON; return text, base64 or a FileOutput"
    return f"{where} is {_type_name(item)}, which is not JSON; convert it to str, int, float, list or dict"


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
