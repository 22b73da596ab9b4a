"""What containers print, copied into the platform's own files, where it stays when they are gone.

Place in the flow: the engine begins a `Follower` for each container that runs, and finishes it once that has ended. A
server that comes back goes on after the last line that it has; the engine keeps what was printed meanwhile, as far as
its own bound reaches.
"""

import asyncio
import logging
from datetime import UTC, datetime
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

logger = logging.getLogger(__name__)


class CopiedLog:
    """The files of one replica's log, with the place up to which they were copied.

    Args:
        folder: The replica's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.last_line = ""
        self.last_stamp = _last_stamp(folder)
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
        """A new stream begins; what the last one left unfinished comes again."""
        self._rest.clear()

    def close(self) -> None:
        """Nothing more will come."""
        self._log.close()

    def _stamped(self, line: bytes) -> bytes | None:
        """The line as our files have it; None where they have it already."""
        time, _, text = line.partition(b" ")
        second, _, fraction = time.partition(b".")
        if second != self._second:
            try:
                self._epoch = int(datetime.fromisoformat(second.decode().rstrip("Z")).replace(tzinfo=UTC).timestamp())
            except ValueError:
                return None
            self._second = second
        stamp = (self._epoch, fraction.rstrip(b"Z").ljust(9, b"0")[:9])
        if stamp <= self.last_stamp:
            return None
        self.last_stamp = stamp
        text = text.rstrip(b"\r\n")
        if text.strip():
            self.last_line = text.decode(errors="replace").strip()
        return b"%d.%s %s\n" % (*stamp, text.replace(b"\n", b" "))


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


def _last_stamp(folder: Path) -> tuple[int, bytes]:
    """When the last line was printed that was copied; 0 where none was."""
    files = sorted(folder.glob("log.*"), key=lambda path: int(path.suffix[1:]))
    for path in reversed(files):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            last = file.read().rstrip(b"\n").rpartition(b"\n")[2].partition(b" ")[0]
        seconds, _, fraction = last.partition(b".")
        if seconds.isdigit():
            return int(seconds), fraction.ljust(9, b"0")[:9]
    return 0, b"0" * 9
