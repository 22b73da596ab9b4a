"""SQLite's write-ahead log read as bytes, to tell whether it still holds what was committed. Pure but for one file.

The log is a header of 32 bytes and frames of 24 bytes and a page each. Every frame has the checksum of all before it,
and the log's index (`-shm`) that of the last one that was committed: so the bytes are the ones that were written, or
the sums differ. The format is SQLite's own documentation's, https://www.sqlite.org/walformat.html.
"""

import struct
from collections.abc import Callable, Iterator

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
INDEX_BYTES = 48
_MAGIC = 0x377F0682
"""With the lowest bit set, the sums are of big-endian words."""
_WORD = 0xFFFFFFFF

Sum = tuple[int, int]


class FramesLost(Exception):
    """The log is not what was committed."""


def committed(index: bytes) -> tuple[int, Sum]:
    """How many frames have been committed, and the checksum of the last one, as the first bytes of the index say."""
    (frames,) = struct.unpack_from("=I", index, 16)
    first, second = struct.unpack_from("=II", index, 24)
    return frames, (first, second)


def pieces(read: Callable[[int, int], bytes], index: bytes) -> Iterator[tuple[int, bytes]]:
    """The log up to the last committed frame, with the offset of each piece; checked at the end of all.

    Args:
        read: So many bytes of the log from an offset on.
        index: The first `INDEX_BYTES` of the index, while nobody writes.

    Raises:
        FramesLost: Something else is there.
    """
    frames, last = committed(index)
    if not frames:
        return
    header = read(HEADER_BYTES, 0)
    if len(header) < HEADER_BYTES:
        raise FramesLost
    magic, _, page_bytes = struct.unpack_from(">III", header)
    if magic & ~1 != _MAGIC:
        raise FramesLost
    order = ">" if magic & 1 else "<"
    salts, running = header[16:24], _add((0, 0), header[:24], order)
    yield 0, header
    frame_bytes = FRAME_HEADER_BYTES + page_bytes
    for number in range(frames):
        offset = HEADER_BYTES + number * frame_bytes
        frame = read(frame_bytes, offset)
        if len(frame) < frame_bytes or frame[8:16] != salts:
            raise FramesLost
        running = _add(_add(running, frame[:8], order), frame[FRAME_HEADER_BYTES:], order)
        if struct.unpack_from(">II", frame, 16) != running:
            raise FramesLost
        yield offset, frame
    if running != last:
        raise FramesLost


def _add(running: Sum, data: bytes, order: str) -> Sum:
    first, second = running
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words, strict=True):
        first = (first + even + second) & _WORD
        second = (second + odd + first) & _WORD
    return first, second
