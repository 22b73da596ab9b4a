"""The results of a run: kept on disk as they come, written in the order of the lines at the end."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from array import array
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from jig.errors import JigError, UsageError
from jig.job import error_text

STANDARD_OUTPUT = "-"


class Results:
    """The results of a run's jobs, one JSON object a line, within a `with` block.

    They are kept on disk in the order in which they come. The file is at its place once it is whole; if it does not get
    whole, nothing is left of it.

    Args:
        output: the path of the file, or `-` for standard output.
        force: overwrite what is there.

    Raises:
        UsageError: there is something at the place, and no force; or it cannot be written.
    """

    def __init__(self, output: str, *, force: bool) -> None:
        self._output = output
        place = Path(output)
        # A pipe or a device is written to; it is no file that another could take the place of.
        self._place = None if output == STANDARD_OUTPUT or (place.exists() and not place.is_file()) else place
        if self._place and self._place.exists() and not force:
            hint = "Choose another place with --output, or overwrite it with --force."
            raise UsageError(f"{output} exists already.", hint=hint)
        self._offsets = array("q")
        self._end = 0
        try:
            self._to = self._opened()
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__
        except OSError as error:
            raise UsageError(f"Cannot write {output}: {error.strerror}.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()
        if self._output != STANDARD_OUTPUT:
            with contextlib.suppress(OSError):  # it is at its place, or what was not written has been told of
                self._to.close()

    def _opened(self) -> IO[bytes]:
        """Where they are written at the end."""
        if self._place is not None:
            # In its place's folder, so that it can get there by a new name alone.
            return cast("IO[bytes]", tempfile.NamedTemporaryFile(prefix=".jig-", dir=self._place.parent))
        return sys.stdout.buffer if self._output == STANDARD_OUTPUT else Path(self._output).open("wb")

    def add(self, at: int, line: int, job: Mapping[str, Any], ending: str) -> None:
        """Keep the result of the job at an index.

        Raises:
            JigError: the disk does not take it.
        """
        text = json.dumps(result_of(line, job, ending), ensure_ascii=False, separators=(",", ":")) + "\n"
        while len(self._offsets) <= at:
            self._offsets.append(-1)
        self._offsets[at] = self._end
        try:
            self._end += self._spool.write(text.encode(errors="replace"))
        except OSError as error:
            raise JigError(f"Cannot keep the results: {error.strerror}.") from error

    def finish(self) -> None:
        """Write all that were kept, in the order of their lines.

        Raises:
            JigError: the disk does not take them.
        """
        try:
            self._write()
            if self._place is not None:
                partial = Path(self._to.name)
                partial.chmod(0o666 & ~umask())
                partial.replace(self._place)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise JigError(f"Cannot write {self._output}: {error.strerror}.") from error

    def _write(self) -> None:
        place = -1
        for offset in self._offsets:
            if place != offset:
                place = self._spool.seek(offset)
            place += self._to.write(self._spool.readline())
        self._to.flush()


def result_of(line: int, job: Mapping[str, Any], ending: str) -> dict[str, Any]:
    """What the results' file says of a job."""
    return {
        "line": line,
        "request_id": job["request_id"],
        "status": ending,
        "outputs": job.get("outputs"),
        "error": (error_text(job) or None) if ending != "done" else None,
    }


def umask() -> int:
    """The permissions that this process takes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
