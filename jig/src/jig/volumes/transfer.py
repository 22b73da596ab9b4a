"""One piece of a file to a signed URL, and the bytes of it that have gone out so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jig.client import Client
from jig.volumes.crew import Crew
from jig.volumes.digests import read
from jig.volumes.source import SourceFile

Progress = Callable[[int], None]
"""Called with the number of bytes that have just gone out; a negative number takes them back."""


@dataclass(frozen=True)
class Transfer:
    """What every upload of a run needs.

    Args:
        client: the platform.
        crew: whose threads do it; once one fails, the others stop within a chunk.
        progress: told of the bytes.
    """

    client: Client
    crew: Crew
    progress: Progress

    def put(self, target: Mapping[str, Any], file: SourceFile, start: int, end: int) -> str:
        """Send the bytes from one place to another, again if need be; return the ETag of the answer.

        Args:
            target: where to: `url`, `method` and perhaps `headers`.
            file: where from.
            start: the first byte's place.
            end: the place behind the last one.

        Raises:
            PlatformError: the receiver refuses, or is away for too long.
            VolumeError: the file cannot be read, or has changed.
        """
        return self.crew.patiently(lambda: self._put_once(target, file, start, end))

    def _put_once(self, target: Mapping[str, Any], file: SourceFile, start: int, end: int) -> str:
        sent_bytes = 0

        def chunks() -> Iterator[bytes]:
            nonlocal sent_bytes
            for chunk in read(file, start, end):
                self.crew.check()
                yield chunk
                sent_bytes += len(chunk)
                self.progress(len(chunk))

        try:
            response = self.client.send(
                target.get("method") or "PUT",
                target["url"],
                chunks(),
                length=end - start,
                key=target["url"].startswith("/"),
                headers=target.get("headers"),
            )
        except BaseException:
            self.progress(-sent_bytes)
            raise
        etag: str = response.headers.get("etag", "")
        return etag.strip('"')
