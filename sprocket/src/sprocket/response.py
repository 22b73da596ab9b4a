"""What a processor sees of a file that has been downloaded: an answer in the manner of httpx, read from disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


class Headers(Mapping[str, str]):
    """An answer's headers; `headers["Content-Type"]` finds them in whatever case."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = {name.lower(): value for name, value in fields.items()}

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


class FileResponse:
    """The answer to the download of one input file, which is complete and lies on disk.

    It has what `httpx.Response` offers for reading, so code written for that works. `content` reads all of the file
    into memory; `iter_bytes` and `save` do not.

    Attributes:
        status_code: always 200.
        headers: the server's.
        url: where the file lay in the end, after redirects; `str(url)`, `url.host`, `url.path`.
        path: where the bytes lie until `process_input_file` is over.
    """

    status_code = 200
    reason_phrase = "OK"
    is_success = True
    is_error = False
    encoding = "utf-8"

    def __init__(self, path: Path, url: Any, headers: Mapping[str, str]) -> None:
        self.path = path
        self.url = url
        self.headers = Headers(headers)

    @property
    def content(self) -> bytes:
        """All of the file."""
        return self.path.read_bytes()

    @property
    def text(self) -> str:
        """All of the file as text; what is no UTF-8 is replaced."""
        return self.content.decode(self.encoding, "replace")

    def json(self) -> Any:
        """Parse the file as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.content)

    def read(self) -> bytes:
        """Give all of the file."""
        return self.content

    async def aread(self) -> bytes:
        """Give all of the file."""
        return self.content

    def iter_bytes(self, chunk_size: int | None = None) -> Iterator[bytes]:
        """Give the file in pieces of `chunk_size` bytes (1 MiB)."""
        with self.path.open("rb") as file:
            while data := file.read(chunk_size or CHUNK_BYTES):
                yield data

    async def aiter_bytes(self, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        """Give the file in pieces of `chunk_size` bytes (1 MiB)."""
        for data in self.iter_bytes(chunk_size):
            yield data

    iter_raw = iter_bytes
    aiter_raw = aiter_bytes

    def save(self, destination: str | os.PathLike[str]) -> None:
        """Put the file to another place, without a copy where that is on the same disk."""
        try:
            os.link(self.path, destination)
        except OSError:
            shutil.copyfile(self.path, destination)

    def raise_for_status(self) -> FileResponse:
        """Give the answer itself: one that is no success never comes to a processor."""
        return self

    def close(self) -> None:
        """Nothing: there is no connection any more."""

    async def aclose(self) -> None:
        """Nothing: there is no connection any more."""
