"""Reading what `shim.py` writes: numbered log files of bounded size, of which the older ones go."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from machineshop.runtime.base import LogLine

READ_BYTES = 256 * 1024
"""How much to take at a time, so that a replica that prints without end cannot stop whoever reads along."""
READ_LINES = 1000
"""The same for lines, as reading a line takes its time however short it is."""
BLOCK_BYTES = 64 * 1024


class FileLog:
    """A reader of one replica's log; it keeps its place, also over the change from one file to the next.

    Args:
        folder: The replica's folder.
        replica_id: Named in every line.
    """

    def __init__(self, folder: Path, replica_id: str) -> None:
        self._folder, self._replica_id = folder, replica_id
        self._number = 0
        self._offset = 0

    def read_last(self, count: int | None) -> list[LogLine]:
        """The last `count` lines (None: all), oldest first; the place is then the end."""
        lines: list[LogLine] = []
        numbers = self._numbers()
        for number in reversed(numbers):
            missing = None if count is None else count - len(lines)
            text, end = self._read_end(number, missing)
            lines[:0] = self._parse(text)
            if number == numbers[-1]:
                self._number, self._offset = number, end
            if missing is not None and len(lines) >= (count or 0):
                break
        return lines

    def read_new(self) -> list[LogLine]:
        """The next lines, oldest first; empty when there is nothing new."""
        # Looked up before reading: once there is a next file, nothing is added to this one any more.
        following = [number for number in self._numbers() if number > self._number]
        text = self._read_on()
        if not text and following:
            self._number, self._offset = following[0], 0
            text = self._read_on()
        return self._parse(text)

    def _numbers(self) -> list[int]:
        try:
            names = [path.name[4:] for path in self._folder.glob("log.*")]
        except OSError:
            return []
        return sorted(int(name) for name in names if name.isdigit())

    def _read_on(self) -> bytes:
        try:
            with self._path(self._number).open("rb") as file:
                file.seek(self._offset)
                text = file.read(READ_BYTES)
        except OSError:
            return b""
        text = _first_lines(text)
        self._offset += len(text)
        return text

    def _read_end(self, number: int, count: int | None) -> tuple[bytes, int]:
        """The last `count` whole lines of a file, and where they end."""
        try:
            with self._path(number).open("rb") as file:
                text = file.read() if count is None else _last_blocks(file, count)
                end = file.seek(0, 2) if count is not None else len(text)
        except OSError:
            return b"", 0
        whole = text[: text.rfind(b"\n") + 1]
        end -= len(text) - len(whole)
        if count is not None:
            lines = whole.splitlines(keepends=True)
            whole = b"".join(lines[len(lines) - min(count, len(lines)) :])
        return whole, end

    def _path(self, number: int) -> Path:
        return self._folder / f"log.{number}"

    def _parse(self, text: bytes) -> list[LogLine]:
        return list(self._parsed(text))

    def _parsed(self, text: bytes) -> Iterator[LogLine]:
        for line in text.split(b"\n")[:-1]:
            stamp, _, rest = line.partition(b" ")
            try:
                at = float(stamp)
            except ValueError:
                continue
            yield LogLine(at=at, replica_id=self._replica_id, text=rest.decode(errors="replace").rstrip("\r"))


def _last_blocks(file: BinaryIO, count: int) -> bytes:
    """The end of a file, with at least `count` lines and a piece of the one before, if it has that many."""
    start, ends = file.seek(0, 2), 0
    blocks: list[bytes] = []
    while start > 0 and ends <= count:
        size = min(BLOCK_BYTES, start)
        start -= size
        file.seek(start)
        blocks.append(file.read(size))
        ends += blocks[-1].count(b"\n")
    return b"".join(reversed(blocks))


def _first_lines(text: bytes) -> bytes:
    """The first whole lines of a text, as many as are read at a time."""
    rest = text.split(b"\n", READ_LINES)[-1]
    return text[: len(text) - len(rest)]
