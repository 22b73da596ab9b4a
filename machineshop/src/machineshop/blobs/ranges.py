"""Which bytes a request asks for: the Range header of RFC 9110, one range of it."""

import re

import msgspec

from machineshop.errors import RangeNotSatisfiable

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.IGNORECASE | re.ASCII)


class ByteRange(msgspec.Struct, frozen=True):
    """The bytes from `start` up to and without `end`."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many bytes these are."""
        return self.end - self.start

    def content_range(self, size: int) -> str:
        """The Content-Range header of an answer with these bytes of `size`."""
        return f"bytes {self.start}-{self.end - 1}/{size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range that a Range header means of `size` bytes.

    None means the whole: without the header, and as the RFC has it for what we do not understand or do not serve
    (other units, several ranges).

    Raises:
        RangeNotSatisfiable: The range holds none of the bytes.
    """
    match = _RANGE.fullmatch(header) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None
    elif last:
        start, end = max(size - int(last), 0), size
    else:
        return None
    if start >= end:
        raise RangeNotSatisfiable(size)
    return ByteRange(start, end)
