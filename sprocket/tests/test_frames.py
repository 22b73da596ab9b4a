"""Messages between the worker and its model's process, without either."""

from __future__ import annotations

import struct

import pytest

from sprocket.errors import ChannelError
from sprocket.frames import FIELDS_LIMIT_BYTES, TAIL_LIMIT_BYTES, Frames, Message, encode_message

MESSAGES = [Message({"say": "hello", "n": [1, None, "ü"]}, b""), Message({}, b"\0" * 1000), Message({"last": 1}, b"x")]
STREAM = b"".join(encode_message(fields, tail) for fields, tail in MESSAGES)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 100, len(STREAM)])
def test_messages_come_out_as_they_went_in_however_they_are_cut(size: int) -> None:
    frames = Frames()
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert [message for piece in pieces for message in frames.feed(piece)] == MESSAGES


def test_the_end_of_the_stream_completes_nothing() -> None:
    assert list(Frames().feed(b"")) == []


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", FIELDS_LIMIT_BYTES + 1, 0),
        struct.pack(">II", 2, TAIL_LIMIT_BYTES + 1),
        struct.pack(">II", 2, 0) + b"[]",
        struct.pack(">II", 2, 0) + b"\xff\xff",
        struct.pack(">II", 100_000, 0) + b"[" * 100_000,
    ],
)
def test_what_is_no_message_is_refused_before_more_of_it_comes(data: bytes) -> None:
    with pytest.raises(ChannelError, match="message between the worker and the model's process"):
        list(Frames().feed(data))


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(ChannelError, match="more than it may"):
        encode_message({}, bytes(TAIL_LIMIT_BYTES + 1))
