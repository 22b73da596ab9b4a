"""A file of jobs, one JSON object a line: checked whole, then read again while the jobs go out."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jig.errors import UsageError
from jig.run.job_lines import LineError, parse_line
from jig.units import count, size

STANDARD_INPUT = "-"
LINE_LIMIT_BYTES = 8 * 1024 * 1024  # a payload of the largest size, all of it escaped, is smaller
ERRORS_SHOWN = 10


@dataclass(frozen=True)
class FileJob:
    """A job of the file.

    Args:
        number: its line, counted from 1.
        fields: its payload and what else it sets.
        digest: of the line as it stands.
    """

    number: int
    fields: dict[str, Any]
    digest: str


class JobFile:
    """A file of jobs that is open.

    Args:
        name: as errors call it.
        file: its bytes, which can be read more than once.
    """

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._file = file

    def check(self) -> int:
        """How many jobs there are.

        Raises:
            UsageError: a line is no job, or there is none; all bad lines are named.
        """
        jobs, bad = 0, 0
        shown: list[str] = []
        first_line_of_key: dict[str, int] = {}
        for number, raw in self._lines():
            try:
                fields = self._parsed(raw)
                check_repeated(fields.get("idempotency_key"), number, first_line_of_key)
                jobs += 1
            except LineError as error:
                bad += 1
                if bad <= ERRORS_SHOWN:
                    shown.append(self._placed(number, error))
        if bad:
            raise UsageError(bad_lines(self.name, bad, shown), hint="Nothing was submitted.")
        if not jobs:
            raise UsageError(f"{self.name} holds no jobs.", hint="Each line is a payload: a JSON object.")
        return jobs

    def jobs(self) -> Iterator[FileJob]:
        """The jobs, one after another.

        Raises:
            UsageError: the file has changed since it was checked, and a line is no job any more.
        """
        for number, raw in self._lines():
            try:
                yield FileJob(number, self._parsed(raw), hashlib.sha256(raw).hexdigest())
            except LineError as error:
                raise UsageError(self._placed(number, error)) from error

    def _placed(self, number: int, error: LineError) -> str:
        return f"{self.name}:{number}:{error.column}: {error.message}."

    def _parsed(self, raw: bytes) -> dict[str, Any]:
        if len(raw) > LINE_LIMIT_BYTES:
            raise LineError(f"the line is longer than {size(LINE_LIMIT_BYTES)}", LINE_LIMIT_BYTES)
        return parse_line(raw)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that hold something, with their numbers; of one that is too long only its beginning."""
        self._file.seek(0)
        number = 0
        while line := self._file.readline(LINE_LIMIT_BYTES + 1):
            number += 1
            rest = line
            while not rest.endswith(b"\n") and (rest := self._file.readline(LINE_LIMIT_BYTES)):
                pass
            if not line.isspace():
                yield number, line.rstrip(b" \t\r\n")


def check_repeated(key: str | None, number: int, first_line_of_key: dict[str, int]) -> None:
    """No two lines have one idempotency key.

    Raises:
        LineError: an earlier line has it.
    """
    if key is None:
        return
    first = first_line_of_key.setdefault(key, number)
    if first != number:
        raise LineError(f'its "idempotency_key" is that of line {first}, so it would be the same job')


def bad_lines(name: str, bad: int, shown: list[str]) -> str:
    """The error for lines that are no jobs, given how many there are and the first of them."""
    verb = "is no job" if bad == 1 else "are no jobs"
    more = [f"... and {count(bad - len(shown), 'line')} more"] if bad > len(shown) else []
    return "\n".join((f"{count(bad, 'line')} of {name} {verb}:", *shown, *more))


@contextmanager
def opened(path: str) -> Iterator[JobFile]:
    """The file of a path, or standard input for `-`. What can be read only once is copied to disk first.

    Raises:
        UsageError: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            is_input = path == STANDARD_INPUT
            file: IO[bytes] = sys.stdin.buffer if is_input else stack.enter_context(Path(path).open("rb"))
            if not file.seekable():
                source, file = file, stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(source, file)
        except OSError as error:
            raise UsageError(f"--file {path}: cannot read that file: {error.strerror}.") from error
        yield JobFile("standard input" if is_input else path, file)
