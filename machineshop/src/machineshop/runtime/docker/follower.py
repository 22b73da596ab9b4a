"""What containers print, copied into the platform's own files, where it stays when they are gone.

Place in the flow: the engine begins a `Follower` for each container that runs, and finishes it once that has ended. A
server that comes back goes on after the last line that it has; the engine keeps what was printed meanwhile, as far as
its own bound reaches.
"""

import asyncio
import logging
import re
from datetime import datetime
from pathlib import Path

from machineshop.runtime.docker.api import EngineApi, EngineError
from machineshop.runtime.shim import Log

LOG_FILE_BYTES = 5 * 1024**2
BYTES_A_SECOND = 8 * 1024**2
LINES_A_SECOND = 20_000
"""As much as is copied of one container: one that prints without end must not take the server's time. It is made to
wait by the engine, or loses lines."""
AGAIN_SECONDS = 1.0
FINISH_SECONDS = 20.0
_HEADER_BYTES = 8
_TAIL_BYTES = 64 * 1024
_LINE_BYTES = 1024 * 1024
# Docker counts nanoseconds and is in UTC; Podman 4 knows seconds alone, in the machine's zone.
_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")

logger = logging.getLogger(__name__)


class CopiedLog:
    """The files of one replica's log, with the place up to which they were copied.

    Args:
        folder: The replica's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.last_line = ""
        self.last_stamp, self._same = _place(folder)
        """The last time there is, and how many lines have it."""
        self._again: int | None = self._same
        """So many lines of that time come again in this stream; None: the stream is past what there is."""
        self._log = Log(str(folder), LOG_FILE_BYTES)
        self._rest = bytearray()
        self._second, self._epoch = b"", 0

    def take(self, chunk: bytes) -> int:
        """Write the lines that this completes; returns how many there were."""
        self._rest += chunk
        lines, place = [], 0
        while len(self._rest) - place >= _HEADER_BYTES:
            # A frame: the stream, three zeros, four bytes of length, a time, a space, and a line or a piece of one.
            size = int.from_bytes(self._rest[place + 4 : place + _HEADER_BYTES], "big")
            if size > _LINE_BYTES:
                raise ValueError(size)
            end = place + _HEADER_BYTES + size
            if len(self._rest) < end:
                break
            lines.append(bytes(self._rest[place + _HEADER_BYTES : end]))
            place = end
        del self._rest[:place]
        new = [stamped for line in lines if (stamped := self._stamped(line)) is not None]
        if new:
            self._log.append(b"".join(new))
        return len(lines)

    def restart(self) -> None:
        """A new stream begins, at the last time there is; what the last one left unfinished comes again."""
        self._rest.clear()
        self._again = self._same

    def close(self) -> None:
        """Nothing more will come."""
        self._log.close()

    def _stamped(self, line: bytes) -> bytes | None:
        """The line as our files have it; None where they have it already."""
        time, _, text = line.partition(b" ")
        stamp = self._stamp(time)
        if stamp is None or self._is_there(stamp):
            return None
        self._same = self._same + 1 if stamp == self.last_stamp else 1
        self.last_stamp = max(stamp, self.last_stamp)
        text = text.rstrip(b"\r\n")
        if text.strip():
            self.last_line = text.decode(errors="replace").strip()
        return b"%d.%s %s\n" % (*stamp, text.replace(b"\n", b" "))

    def _stamp(self, time: bytes) -> tuple[int, bytes] | None:
        """An engine's time, in seconds since the epoch and nine digits more."""
        parts = _TIME.fullmatch(time)
        if parts is None:
            return None
        second = parts[1] + parts[3]
        if second != self._second:
            self._epoch, self._second = int(datetime.fromisoformat(second.decode()).timestamp()), second
        return self._epoch, (parts[2] or b"").ljust(9, b"0")

    def _is_there(self, stamp: tuple[int, bytes]) -> bool:
        """Whether a line is one of those that a stream says again at its beginning."""
        if self._again is None:
            return False
        if stamp < self.last_stamp:
            return True
        if stamp == self.last_stamp and self._again:
            self._again -= 1
            return True
        self._again = None
        return False


class Follower:
    """Copies what one container prints, until it has ended and all is copied.

    Args:
        api: The engine.
        container: The container's name.
        log: Where it goes.
    """

    def __init__(self, api: EngineApi, container: str, log: CopiedLog) -> None:
        self._api, self._container, self._log = api, container, log
        self._ended = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"log of {container}")

    async def finish(self) -> str:
        """The container has ended: copy what is left, within `FINISH_SECONDS`; returns the last line."""
        self._ended.set()
        await asyncio.wait([self._task], timeout=FINISH_SECONDS)
        await self.stop()
        return self._log.last_line

    async def stop(self) -> None:
        """Look away."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._log.close()

    async def _run(self) -> None:
        while not self._ended.is_set():
            await self._copy(follow=True)
            try:
                async with asyncio.timeout(AGAIN_SECONDS):
                    await self._ended.wait()
            except TimeoutError:
                continue  # the engine has hung up, or the container's end is not known yet
        await self._copy(follow=False)

    async def _copy(self, *, follow: bool) -> None:
        seconds, fraction = self._log.last_stamp
        self._log.restart()
        query = {"stdout": True, "stderr": True, "timestamps": True, "follow": follow}
        try:
            async with self._api.stream(
                f"/containers/{self._container}/logs", since=f"{seconds}.{fraction.decode()}", **query
            ) as stream:
                async for chunk in stream.iter_any():
                    lines = self._log.take(chunk)
                    await asyncio.sleep(max(len(chunk) / BYTES_A_SECOND, lines / LINES_A_SECOND) if lines > 1 else 0)
        except (EngineError, OSError, ValueError) as error:
            logger.info("log of a container not read: container=%s error=%s", self._container, error)


def _place(folder: Path) -> tuple[tuple[int, bytes], int]:
    """When the last line was printed that was copied, 0 where none was, and how many of the last ones have that time.

    They are counted in the file's last part: what is more than that comes twice.
    """
    files = sorted(folder.glob("log.*"), key=lambda path: int(path.suffix[1:]))
    for path in reversed(files):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            times = [line.partition(b" ")[0] for line in file.read().rstrip(b"\n").split(b"\n")]
        seconds, _, fraction = times[-1].partition(b".")
        if seconds.isdigit():
            return (int(seconds), fraction.ljust(9, b"0")[:9]), times.count(times[-1])
    return (0, b"0" * 9), 0
