"""An answer that never arrives: what it brought is handed out again to the worker that it was for."""

import asyncio
import contextlib
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from platform_process import PlatformProcess
from sprocket.config import PlatformConfig
from sprocket.errors import PlatformAwayError, StaleAttemptError
from sprocket.messages import Claim, Update
from sprocket.platform import Platform


class Line:
    """A way to the platform that breaks before an answer is through, as often as it is told to."""

    def __init__(self, port: int) -> None:
        self._platform_port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.breaks = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._platform_port)
        for task in (self._pass_on(reader, back), self._answer(there, writer)):
            started = asyncio.create_task(task)
            self._tasks.add(started)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            finally:
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                while data := await reader.read(65536):
                    if self.breaks:
                        self.breaks -= 1
                        break
                    writer.write(data)
                    await writer.drain()
            finally:
                writer.transport.abort()


@pytest.mark.parametrize("by", ["turn", "poll"])
async def test_jobs_of_a_lost_answer_are_handed_to_the_same_worker_at_once(
    platform: PlatformProcess, idle: str, by: str
) -> None:
    jobs = [platform.submit(idle, {"number": number}) for number in range(3)]
    taken: list[Claim] = []
    async with Line(urlsplit(platform.base_url).port or 0) as line:
        address = f"http://127.0.0.1:{line.port}"
        worker = Platform(PlatformConfig(address, platform.api_key, idle, "a-worker-of-ours"))
        assert await worker.claim(1, 0.0, taken.extend) == 1
        result = Update(jobs[0], taken[0].attempt_token, "done", {})

        async def claim() -> list[Any]:
            if by == "turn":
                return await worker.exchange([result], 1, taken.extend)
            return [await worker.claim(1, 0.0, taken.extend)]

        # Both tries of one request: over the connection that was kept, and over a new one.
        line.breaks = 2
        with pytest.raises(PlatformAwayError):
            await claim()
        assert platform.job(idle, jobs[1])["status"] == "running", "the claim was made"
        (answered,) = await claim()
        await worker.close()
    assert answered == 1 or isinstance(answered, StaleAttemptError), "a result that had arrived"
    assert [claim.request_id for claim in taken] == jobs[:2]
    second = platform.job(idle, jobs[1])
    assert (second["status"], second["attempt"]) == ("running", 1)
    assert platform.job(idle, jobs[2])["status"] == "pending", "it was claimed once"
