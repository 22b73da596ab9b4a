"""An HTTP/1.1 answer, put together from the bytes as they come in; without I/O.

What an idle worker waits for is a small answer that comes in one piece. A process that has just woken up pays for every
function that it enters, and a loop over the lines of a head took 0.1 ms there: hence the two searches over all of it.
"""

from __future__ import annotations

import re

from .errors import PlatformAwayError

HEAD_LIMIT_BYTES = 64 * 1024
BODY_LIMIT_BYTES = 128 * 1024**2
"""Above a hundred jobs, the most that one answer brings, with the largest payload that a queue takes."""

START = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])[ \r]")
FRAMING = re.compile(rb"\n(content-length|transfer-encoding|connection)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
"""The header fields that say how far an answer goes, and whether another may follow."""
LENGTH_LIMIT_DIGITS = 15

CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
CHUNK_LINE_LIMIT_BYTES = 4096

BODILESS_STATUSES = frozenset({204, 304})


class Answer:
    """One answer to a request of ours.

    Attributes:
        status: the HTTP status; 0 as long as it is not known.
        body: the body, once the answer is complete.
        complete: whether everything has arrived.
        reusable: whether the connection may carry another request; False until the answer is complete.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.complete = False
        self.reusable = False
        self._head = b""
        self._keeps_open = False
        self._length_bytes: int | None = None
        self._chunks: _Chunks | None = None
        self._pieces: list[bytes] = []
        self._received_bytes = 0

    def feed(self, data: bytes) -> bool:
        """Take what has arrived.

        Returns:
            Whether the answer is complete.

        Raises:
            PlatformAwayError: this is no answer, or too large a one.
        """
        if self.complete:
            self.reusable = False  # Bytes that nobody asked for: what they belong to cannot be known.
            return True
        while not self.status:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if not 0 <= end <= HEAD_LIMIT_BYTES:
                self._check_head()
                return False
            head, data, self._head = self._head[: end + 2], self._head[end + 4 :], b""
            self._read_head(head)
        self._read_body(data)
        return self.complete

    def end(self) -> bool:
        """Take note that the connection has ended; give whether that completes the answer."""
        if self.status and self._length_bytes is None and self._chunks is None:
            self._finish(clean=False)
        return self.complete

    def _check_head(self) -> None:
        """Refuse a head that has no end, and what is no HTTP, before more of it comes."""
        if len(self._head) > HEAD_LIMIT_BYTES:
            raise _malformed("its head is too large")
        if not self._head.startswith(b"HTTP/1."[: len(self._head)]):
            raise _malformed("it does not begin as HTTP/1.1 does")

    def _read_head(self, head: bytes) -> None:
        start = START.match(head)
        if start is None or start[2] == b"101":
            raise _malformed("it does not begin as HTTP/1.1 does")
        if start[2] < b"200":
            return  # 100, 103 and the like: the real answer follows.
        self.status = int(start[2])
        self._keeps_open = start[1] == b"1"
        for name, value in FRAMING.findall(head):
            self._frame(name.lower(), value.rstrip())
        if self.status in BODILESS_STATUSES:
            self._length_bytes, self._chunks = 0, None
        elif self._chunks is not None and self._length_bytes is not None:
            # Two statements about one length: the chunks count, and the connection is not trusted any further.
            self._length_bytes, self._keeps_open = None, False

    def _frame(self, name: bytes, value: bytes) -> None:
        """Heed one of the fields that `FRAMING` finds."""
        if name == b"content-length":
            if not value.isdigit() or len(value) > LENGTH_LIMIT_DIGITS or self._length_bytes is not None:
                raise _malformed("its length makes no sense")
            self._length_bytes = int(value)
            _check_size(self._length_bytes)
        elif name == b"connection":
            self._keeps_open = self._keeps_open and b"close" not in value.lower()
        elif value.lower() == b"chunked" and self._chunks is None:
            self._chunks = _Chunks()
        else:
            raise _malformed("its transfer encoding is unknown")

    def _read_body(self, data: bytes) -> None:
        if self._chunks is not None:
            data = self._chunks.decode(data)
        self._pieces.append(data)
        self._received_bytes += len(data)
        if self._length_bytes is not None:
            if self._received_bytes >= self._length_bytes:
                self._finish(clean=self._received_bytes == self._length_bytes)
        else:
            _check_size(self._received_bytes)
            if self._chunks is not None and self._chunks.ended:
                self._finish(clean=not self._chunks.rest)

    def _finish(self, *, clean: bool) -> None:
        """Be complete; not `clean`: the answer's end is not where the connection's bytes end."""
        self.body = b"".join(self._pieces)[: self._length_bytes]
        self.reusable = self._keeps_open and clean
        self.complete = True


class _Chunks:
    """A body in chunks: where the next one begins is known only from the one before.

    Attributes:
        ended: whether the last chunk, and what follows it, has been read.
        rest: what has not been decoded yet.
    """

    def __init__(self) -> None:
        self.ended = False
        self.rest = b""
        self._wanted_bytes = 0
        self._after_chunk = False
        self._in_trailer = False

    def decode(self, data: bytes) -> bytes:
        """Give the part of the body that `data` completes."""
        data, at = self.rest + data, 0
        pieces: list[bytes] = []
        while not self.ended and at < len(data):
            if self._wanted_bytes:
                pieces.append(data[at : at + self._wanted_bytes])
                self._wanted_bytes -= len(pieces[-1])
                at += len(pieces[-1])
                continue
            end = data.find(b"\r\n", at, at + CHUNK_LINE_LIMIT_BYTES)
            if end < 0:
                break
            self._read_line(data[at:end])
            at = end + 2
        self.rest = data[at:]
        if len(self.rest) > CHUNK_LINE_LIMIT_BYTES and not self.ended:
            raise _malformed("its chunks make no sense")
        return b"".join(pieces)

    def _read_line(self, line: bytes) -> None:
        if self._in_trailer:
            self.ended = not line
            return
        if self._after_chunk:
            if line:
                raise _malformed("its chunks make no sense")
            self._after_chunk = False
            return
        size = CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise _malformed("its chunks make no sense")
        self._wanted_bytes = int(size[1], 16)
        self._after_chunk = self._wanted_bytes > 0
        self._in_trailer = not self._after_chunk


def _check_size(size_bytes: int) -> None:
    if size_bytes > BODY_LIMIT_BYTES:
        raise PlatformAwayError(f"the answer is larger than {BODY_LIMIT_BYTES} bytes")


def _malformed(why: str) -> PlatformAwayError:
    return PlatformAwayError(f"the answer is not understood: {why}")
