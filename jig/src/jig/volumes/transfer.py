"""One request that brings bytes, and how many of them have gone out so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jig.client import Client
from jig.volumes.crew import Crew
from jig.volumes.tally import Tally

Progress = Callable[[int], None]
"""Called with the number of bytes that have just gone out; a negative number takes them back."""


@dataclass(frozen=True)
class Transfer:
    """What every upload of a run needs.

    Args:
        client: the platform.
        crew: whose threads do it; once one fails, the others stop within a chunk.
        progress: told of the bytes.
        tally: told of those that have arrived.
    """

    client: Client
    crew: Crew
    progress: Progress
    tally: Tally

    def put(
        self, target: Mapping[str, Any], pieces: Callable[[], Iterator[bytes]], length: int, *, head: bytes = b""
    ) -> str:
        """Send bytes, again if need be; return the ETag of the answer.

        Args:
            target: where to: `url`, `method` and perhaps `headers`.
            pieces: gives the bytes, from the first one each time.
            length: how many they are.
            head: what goes before them; it is none of the progress.

        Raises:
            PlatformError: the receiver refuses, or is away for too long.
            VolumeError: a file cannot be read, or has changed.
        """
        return self.crew.patiently(lambda: self._put_once(target, pieces, length, head))

    def _put_once(
        self, target: Mapping[str, Any], pieces: Callable[[], Iterator[bytes]], length: int, head: bytes
    ) -> str:
        sent_bytes = 0

        def chunks() -> Iterator[bytes]:
            nonlocal sent_bytes
            if head:
                yield head
            for piece in pieces():
                self.crew.check()
                yield piece
                sent_bytes += len(piece)
                self.progress(len(piece))

        try:
            response = self.client.send(
                target.get("method") or "PUT",
                target["url"],
                chunks(),
                length=len(head) + length,
                key=target["url"].startswith("/"),
                headers=target.get("headers"),
            )
        except BaseException:
            self.progress(-sent_bytes)
            raise
        self.tally.send(length)
        etag: str = response.headers.get("etag", "")
        return etag.strip('"')
