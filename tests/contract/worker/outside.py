"""What a worker has around it: a platform that can misbehave, and who starts it, looks after it and ends it."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from contract.worker.forms import HERE, Form
from ports import reserve_port
from sprocket.testing.fake_platform import FakePlatform
from sprocket.testing.fake_queue import FakeJob, Update, fault

WAIT_SECONDS = 60.0
DEPLOYMENT = "protocol"


class Platform(FakePlatform):
    """The platform as a worker sees it, with faults on request.

    Attributes:
        polls: the queries of the polls so far.
        poll_seconds: where set, so soon a poll without a job is answered `null`.
        statuses: given to the next updates that end a job in place of a proper answer; nothing is changed then.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.polls: list[dict[str, str]] = []
        self.poll_seconds: float | None = None
        self.statuses: list[int] = []

    async def until_holds(self, condition: Callable[[], object]) -> None:
        """Wait until something holds, as long as a busy machine may need."""
        await self.until(condition, WAIT_SECONDS)

    async def ended(self, job: FakeJob) -> FakeJob:
        """Wait for a job's end."""
        return await self.finished(job, WAIT_SECONDS)

    def said_of(self, job: FakeJob, status: str) -> list[Update]:
        """The updates of a job with this status."""
        return self.updates_of(job, status)

    async def lose(self, job: FakeJob) -> None:
        """The worker is gone: give its job out again."""
        job.status, job.token = "pending", None
        await self._tell()

    async def until_a_result_is_lost(self) -> None:
        """Be away, but for a server that breaks each connection, until one has brought a result."""
        lost = asyncio.Event()

        async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if b'"done"' in await reader.read(1 << 16):
                lost.set()
            writer.transport.abort()

        async with await asyncio.start_server(break_off, "127.0.0.1", self.port):
            await asyncio.wait_for(lost.wait(), WAIT_SECONDS)

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        self.polls.append(dict(request.query))
        await self._tell()
        return await super()._retrieve(request)

    def _wait_seconds(self, request: web.Request) -> float:
        return super()._wait_seconds(request) if self.poll_seconds is None else self.poll_seconds

    def _apply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.statuses and body["status"] != "running":
            return self.statuses.pop(0), fault("as the test wants it")
        job = self.jobs.get(body["request_id"])
        if job is not None and job.attempt == 1:
            # A worker without tokens is fenced by its host name, and there is one worker here.
            body.setdefault("attempt_token", job.token)
        return super()._apply(body)


class Worker:
    """A worker's process, seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    async def health(self) -> int:
        """The status of /health; 0 where nobody answers."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT_SECONDS)) as session,
                session.get(f"http://127.0.0.1:{self.port}/health") as answer,
            ):
                return answer.status
        except aiohttp.ClientError:
            return 0

    async def until_health(self, *statuses: int) -> None:
        """Wait until /health says one of these."""
        async with asyncio.timeout(WAIT_SECONDS):
            while await self.health() not in statuses:
                assert self.process.returncode is None, f"it has ended:\n{self.log}"
                await asyncio.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def exit_code(self) -> int:
        """Wait for its end."""
        return await asyncio.wait_for(self.process.wait(), WAIT_SECONDS)

    async def close(self) -> None:
        """End it, and all that it has started."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()


class Launcher:
    """Starts workers of one form, and ends them."""

    def __init__(self, form: Form, platform: Platform, folder: Path) -> None:
        self._form, self._platform, self._folder = form, platform, folder
        self._workers: list[Worker] = []

    async def __call__(self, **env: str) -> Worker:
        """Start one; it need not be ready."""
        port = reserve_port()
        log = self._folder / f"worker-{len(self._workers)}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *self._form.command,
                cwd=HERE,
                env={**self._environment(port), **self._form.env, **env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        worker = Worker(process, port, log)
        self._workers.append(worker)
        return worker

    async def ready(self, **env: str) -> Worker:
        """Start one, and wait until it is healthy."""
        worker = await self(**env)
        await worker.until_health(200)
        return worker

    async def close(self) -> None:
        """End all."""
        for worker in self._workers:
            await worker.close()

    def _environment(self, port: int) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOGETHER_", "SPROCKET_"))}
        return {
            **kept,
            "PYTHONWARNINGS": "error",
            "TMPDIR": str(self._folder),  # what a killed worker leaves there goes with the test
            "PORT": str(port),
            "TOGETHER_API_KEY": self._platform.api_key,
            "TOGETHER_API_BASE_URL": self._platform.base_url,
            "TOGETHER_DEPLOYMENT_NAME": DEPLOYMENT,
            "TERMINATION_GRACE_PERIOD_SECONDS": "60",
            "WORLD_SIZE": "1",
        }
