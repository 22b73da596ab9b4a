"""Messages on a stream between the worker and its model's process: JSON fields, and bytes that are no JSON beside them.

Each message says its length first. Nothing that comes in is ever executed or unpickled, and nothing is without bound.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .errors import ChannelError

FIELDS_LIMIT_BYTES = 256 * 1024**2
"""Above a request over HTTP of the largest size, with every character escaped."""
TAIL_LIMIT_BYTES = 256 * 1024**2
"""Above the largest outputs that a model may return."""

_head = struct.Struct(">II")
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Message(NamedTuple):
    """What one side tells the other."""

    fields: dict[str, Any]
    tail: bytes


def encode_message(fields: Mapping[str, Any], tail: bytes = b"") -> bytes:
    """Give a message as bytes.

    Raises:
        ChannelError: it is too large.
    """
    text = _to_json(fields).encode()
    _check(len(text), len(tail))
    return b"".join((_head.pack(len(text), len(tail)), text, tail))


class Frames:
    """Puts messages together from the bytes as they come in; without I/O."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._received_bytes = 0
        self._wanted_bytes = _head.size

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take what has arrived; give the messages that it completes.

        Raises:
            ChannelError: this is no message, or too large a one.
        """
        self._pieces.append(data)
        self._received_bytes += len(data)
        while self._received_bytes >= self._wanted_bytes:
            data = b"".join(self._pieces)
            fields_bytes, tail_bytes = _head.unpack_from(data)
            _check(fields_bytes, tail_bytes)
            tail_at = _head.size + fields_bytes
            end = tail_at + tail_bytes
            if end > len(data):
                self._keep(data, end)
                return
            self._keep(data[end:], _head.size)
            yield Message(_fields_of(data[_head.size : tail_at]), data[tail_at:end])

    def _keep(self, data: bytes, wanted_bytes: int) -> None:
        self._pieces, self._received_bytes, self._wanted_bytes = [data], len(data), wanted_bytes


def _fields_of(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ChannelError("a message between the worker and the model's process is no JSON object")
    return fields


def _check(fields_bytes: int, tail_bytes: int) -> None:
    if fields_bytes > FIELDS_LIMIT_BYTES or tail_bytes > TAIL_LIMIT_BYTES:
        raise ChannelError(
            f"a message between the worker and the model's process has {fields_bytes + tail_bytes} bytes, "
            "more than it may"
        )
