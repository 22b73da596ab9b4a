"""Undoes a Content-Encoding, which a server may use although it was asked not to; a bounded piece at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from .errors import InputError

PIECE_BYTES = 1 << 20
"""A few bytes can be a gigabyte in disguise: it is never in memory as a whole."""

EITHER_HEADER = zlib.MAX_WBITS | 32
"""zlib's word for: gzip or deflate, see for yourself."""


class Decoder:
    """Decodes one answer's body."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(EITHER_HEADER)

    @property
    def ended(self) -> bool:
        """Whether nothing is missing."""
        return self._stream.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Give what a piece of the body stands for.

        Raises:
            InputError: it is not what the server says it is.
        """
        while data:
            if self._stream.eof:  # gzip files may follow one another
                self._stream = zlib.decompressobj(EITHER_HEADER)
            try:
                yield self._stream.decompress(data, PIECE_BYTES)
            except zlib.error:
                raise InputError("its compression is broken") from None
            data = self._stream.unconsumed_tail or self._stream.unused_data


def decoder_for(encoding: str) -> Decoder | None:
    """Choose by the answer's Content-Encoding; None: it is sent as it is.

    Raises:
        InputError: nobody here can decode it.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip", "deflate"):
        return Decoder()
    raise InputError(f"it is sent with the Content-Encoding {encoding[:40]!r}, which was not asked for")
