"""A file that is being fetched: what of it has come, whether more can be appended, and what room is left for it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from .decoding import Decoder, decoder_for
from .errors import InputError

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class TransientError(InputError):
    """Worth another try."""


class Budget:
    """The bytes that the inputs of one job may take on disk. Several threads draw from it."""

    def __init__(self, file_limit_bytes: int, job_limit_bytes: int) -> None:
        self.file_limit_bytes = file_limit_bytes
        self._job_limit_bytes = job_limit_bytes
        self._drawn_bytes = 0
        self._lock = threading.Lock()

    def draw(self, size_bytes: int, file_bytes: int) -> None:
        """Take room for more of a file that will have `file_bytes` then.

        Raises:
            InputError: there is none.
        """
        self.check(file_bytes)
        with self._lock:
            self._drawn_bytes += size_bytes
            if self._drawn_bytes > self._job_limit_bytes:
                raise InputError(f"with it the job's inputs are larger than {self._job_limit_bytes} bytes")

    def give_back(self, size_bytes: int) -> None:
        """Return the room of what was thrown away."""
        with self._lock:
            self._drawn_bytes -= size_bytes

    def check(self, file_bytes: int) -> None:
        """Refuse a file that is too large by itself.

        Raises:
            InputError: it is.
        """
        if file_bytes > self.file_limit_bytes:
            raise InputError(f"it is larger than {self.file_limit_bytes} bytes")


class PartialFile:
    """A file on its way. It stays open from try to try; `close` it. Use inside a running event loop.

    Attributes:
        path: where it lies.
        received_bytes: how much of the server's bytes has come; they may be compressed.
        headers: of the answer that it began with, lower-case names.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self.path = path
        self.received_bytes = 0
        self.headers: dict[str, str] = {}
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._file = path.open("wb", buffering=0)
        self._size_bytes = 0
        self._total_bytes: int | None = None
        self._decoder: Decoder | None = None
        self._writing: asyncio.Future[None] | None = None
        self._hand_over = threading.Lock()
        self._is_held = self._is_given_up = False  # by a thread that writes; by its owner

    def wish(self) -> dict[str, str]:
        """Give the headers that ask for the rest, if there can be one: the file must be the same still."""
        if not self.received_bytes or self._validator is None:
            return {}
        return {"Range": f"bytes={self.received_bytes}-", "If-Range": self._validator}

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Take note of an answer, 200 or 206: of the file from its beginning, or of the rest.

        Raises:
            TransientError: it is of another part of the file; all has to be asked for anew.
            InputError: it is too large, or encoded in an unknown way.
        """
        if status == 206:
            self._go_on(headers.get("Content-Range", ""))
            return
        self.restart()
        length = headers.get("Content-Length", "")
        self._total_bytes = int(length) if length.isdigit() else None
        self._budget.check(self._total_bytes or 0)
        self._decoder = decoder_for(headers.get("Content-Encoding", ""))
        self.headers = {name.lower(): value for name, value in headers.items()}

    async def take(self, chunks: AsyncIterator[bytes]) -> None:
        """Write what comes, one piece in a thread while the next one is on its way.

        Raises:
            InputError: it is too large, or its compression is broken.
            OSError: it cannot be written.
        """
        try:
            async for chunk in chunks:
                await self._written()
                self._is_held = True
                self._writing = self._loop.run_in_executor(None, self._write, chunk)
        finally:
            await self._written()

    def check_whole(self) -> None:
        """Refuse a file that has ended too early.

        Raises:
            TransientError: less has come than the server said there would be.
            InputError: its compression ends in the middle.
        """
        if self._total_bytes is not None and self.received_bytes < self._total_bytes:
            raise TransientError("the connection was closed")
        if self._decoder is not None and not self._decoder.ended:
            raise InputError("its compression is cut off")

    def restart(self) -> None:
        """Throw away what has come."""
        self._file.seek(0)
        self._file.truncate()
        self._budget.give_back(self._size_bytes)
        self.received_bytes = self._size_bytes = 0
        self._total_bytes = self._decoder = None
        self.headers = {}

    def close(self) -> None:
        """Close the file; where a thread writes to it still, that thread does, even if the event loop ends before."""
        with self._hand_over:
            self._is_given_up = True
            if self._is_held:
                return
        # In a thread: it takes a third of a second for a gigabyte that is not on disk yet.
        self._loop.run_in_executor(None, self._file.close)

    @property
    def _validator(self) -> str | None:
        """What the server knows this version of the file by; a weak ETag does not vouch for every byte."""
        etag = self.headers.get("etag", "")
        return etag if etag.startswith('"') else self.headers.get("last-modified")

    def _go_on(self, content_range: str) -> None:
        match = CONTENT_RANGE.fullmatch(content_range)
        start_bytes = int(match[1]) if match else -1
        total_bytes = int(match[3]) if match and match[3] != "*" else self._total_bytes
        if start_bytes != self.received_bytes or total_bytes != (self._total_bytes or total_bytes):
            self.restart()
            raise TransientError("another part of the file came than was asked for")
        self._total_bytes = total_bytes

    def _write(self, data: bytes) -> None:
        try:
            self._append(data)
        finally:
            with self._hand_over:
                self._is_held = False
                if self._is_given_up:
                    self._file.close()

    def _append(self, data: bytes) -> None:
        for piece in [data] if self._decoder is None else self._decoder.decode(data):
            self._budget.draw(len(piece), self._size_bytes + len(piece))
            self._size_bytes += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[self._file.write(rest) :]
        self.received_bytes += len(data)

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None
