"""An HTTP/1.1 answer, put together from the bytes as they come in; no I/O, and nothing that the platform never sends."""

from __future__ import annotations

import re
from collections.abc import Callable

from .errors import PlatformAwayError

HEAD_LIMIT_BYTES = 64 * 1024
BODY_LIMIT_BYTES = 64 * 1024**2
"""Far above the largest payload that a queue takes."""

STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5]\d\d)(?: .*)?")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;.*)?")
CHUNK_LINE_LIMIT_BYTES = 4096
BODILESS_STATUSES = frozenset({204, 304})


class Answer:
    """One answer to a request of ours.

    Attributes:
        status: the HTTP status; 0 as long as it is not known.
        body: the body, once the answer is complete.
        complete: whether everything has arrived.
        reusable: whether the connection may carry another request after this complete answer.
    """

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.complete = False
        self.reusable = False
        self._received = bytearray()
        self._chunks = bytearray()
        self._wanted_bytes = 0
        self._ends_with_connection = False
        self._read: Callable[[], bool] = self._read_head
        """What the next bytes are; gives False where it takes more of them to go on."""

    def feed(self, data: bytes | memoryview) -> bool:
        """Take what has arrived.

        Returns:
            Whether the answer is complete.

        Raises:
            PlatformAwayError: this is no answer, or too large a one.
        """
        self._received += data
        while not self.complete and self._read():
            pass
        if self.complete and self._received:
            self.reusable = False  # Bytes that nobody asked for: what they belong to cannot be known.
        return self.complete

    def end(self) -> bool:
        """Take note that the connection has ended; give whether that completes the answer."""
        if self._ends_with_connection and not self.complete:
            self._finish(bytes(self._received))
        return self.complete

    def _read_head(self) -> bool:
        if not self._received.startswith(b"HTTP/1."[: len(self._received)]):
            raise _malformed("it does not begin as HTTP/1.1 does")
        head = self._take_until(b"\r\n\r\n", HEAD_LIMIT_BYTES)
        if head is None:
            return False
        start, *lines = head.decode("latin-1").split("\r\n")
        match = STATUS_LINE.fullmatch(start)
        if match is None or match[2] == "101":
            raise _malformed("its status line makes no sense")
        if match[2][0] == "1":
            return True  # 100, 103 and the like: the real answer follows.
        self.status = int(match[2])
        fields = _fields(lines)
        self.reusable = match[1] == "1" and "close" not in fields.get("connection", "").lower()
        self._frame(fields)
        return True

    def _frame(self, fields: dict[str, str]) -> None:
        """Find out how far the body goes."""
        encoding, length = fields.get("transfer-encoding"), fields.get("content-length")
        if self.status in BODILESS_STATUSES:
            self._finish(b"")
        elif encoding is not None:
            if encoding.lower() != "chunked":
                raise _malformed("its transfer encoding is unknown")
            # Two statements about one length: the standard says which holds, and not to trust the connection further.
            self.reusable = self.reusable and length is None
            self._read = self._read_chunk_size
        elif length is not None:
            if not length.isdecimal():
                raise _malformed("its length is no number")
            # The digits are counted first: Python refuses to read a number of thousands of them.
            self._wanted_bytes = _within_limit(int(length) if len(length) < 16 else BODY_LIMIT_BYTES + 1)
            self._read = self._read_body
        else:
            self._ends_with_connection = True
            self.reusable = False
            self._read = self._read_to_end

    def _read_body(self) -> bool:
        body = self._take(self._wanted_bytes)
        if body is not None:
            self._finish(body)
        return body is not None

    def _read_to_end(self) -> bool:
        _within_limit(len(self._received))
        return False

    def _read_chunk_size(self) -> bool:
        line = self._take_until(b"\r\n", CHUNK_LINE_LIMIT_BYTES)
        if line is None:
            return False
        match = CHUNK_LINE.fullmatch(line)
        if match is None:
            raise _malformed("its chunks make no sense")
        self._wanted_bytes = int(match[1], 16)
        _within_limit(len(self._chunks) + self._wanted_bytes)
        self._read = self._read_chunk if self._wanted_bytes else self._read_trailer
        return True

    def _read_chunk(self) -> bool:
        chunk = self._take(self._wanted_bytes + 2)
        if chunk is None:
            return False
        if not chunk.endswith(b"\r\n"):
            raise _malformed("its chunks make no sense")
        self._chunks += chunk[:-2]
        self._read = self._read_chunk_size
        return True

    def _read_trailer(self) -> bool:
        line = self._take_until(b"\r\n", HEAD_LIMIT_BYTES)
        if line == b"":
            self._finish(bytes(self._chunks))
        return line is not None

    def _take(self, size_bytes: int) -> bytes | None:
        if len(self._received) < size_bytes:
            return None
        taken = bytes(self._received[:size_bytes])
        del self._received[:size_bytes]
        return taken

    def _take_until(self, end: bytes, limit_bytes: int) -> bytes | None:
        at = self._received.find(end)
        if max(at, len(self._received) if at < 0 else 0) > limit_bytes:
            raise _malformed("its head is too large")
        if at < 0:
            return None
        taken = self._take(at + len(end))
        return taken[:at] if taken is not None else None

    def _finish(self, body: bytes) -> None:
        self.body = body
        self.complete = True


def _fields(lines: list[str]) -> dict[str, str]:
    """Give the header fields, names in lower case; one that comes twice has both values with a comma between."""
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _malformed("its header makes no sense")
        name, value = name.lower(), value.strip()
        fields[name] = f"{fields[name]},{value}" if name in fields else value
    return fields


def _within_limit(size_bytes: int) -> int:
    if size_bytes > BODY_LIMIT_BYTES:
        raise PlatformAwayError(f"the answer is larger than {BODY_LIMIT_BYTES} bytes")
    return size_bytes


def _malformed(why: str) -> PlatformAwayError:
    return PlatformAwayError(f"the answer is not understood: {why}")
