"""Worker processes as the platform starts them: `python -m sprocket module:Class`, with models from tests/workers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path

import aiohttp
from sprocket_fake_platform import API_KEY, FakePlatform

WORKERS = Path(__file__).parent / "workers"
WAIT_SECONDS = 60.0


class WorkerProcess:
    """A running worker."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.stderr = ""
        self.stdout = ""
        self._changed = asyncio.Condition()
        self._readers = [asyncio.create_task(self._read("stderr")), asyncio.create_task(self._read("stdout"))]

    async def says(self, text: str, seconds: float = WAIT_SECONDS) -> None:
        """Wait until the worker has written `text`."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: text in self.stderr + self.stdout), seconds)
            except asyncio.TimeoutError:
                raise AssertionError(f"the worker did not say {text!r}:\n{self.stderr}{self.stdout}") from None

    async def port(self) -> int:
        await self.says("listening on port")
        found = re.search(r"listening on port (\d+)", self.stderr)
        assert found
        return int(found[1])

    async def ready(self) -> None:
        await self.says("is ready")

    async def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{await self.port()}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def is_working(self, requests: int = 1) -> None:
        """Wait until so many requests are being worked on."""
        await self._shows("/metrics", f"requests_inflight {requests}.0")

    async def has_predicted(self, times: int) -> None:
        """Wait until predict has ended so many times."""
        await self._shows("/metrics", f"sprocket_predict_seconds_count {times}.0")

    async def is_draining(self) -> None:
        """Wait until the worker takes nothing new."""
        await self._shows("/health", "draining")

    async def _shows(self, path: str, text: str) -> None:
        ends_at = time.monotonic() + WAIT_SECONDS
        while text not in (await self.get(path))[1]:
            assert time.monotonic() < ends_at, f"{path} did not show {text!r}"
            await asyncio.sleep(0.005)

    async def post(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, str]:
        url = f"http://127.0.0.1:{await self.port()}{path}"
        async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
            return answer.status, await answer.text()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_code(self, seconds: float = WAIT_SECONDS) -> int:
        code = await asyncio.wait_for(self.process.wait(), seconds)
        await asyncio.gather(*self._readers)
        return code

    async def seconds_to_exit(self, number: signal.Signals) -> float:
        """Send a signal; how long the process lives on."""
        started_at = time.monotonic()
        self.send(number)
        await self.exit_code()
        return time.monotonic() - started_at

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(*self._readers)

    async def _read(self, name: str) -> None:
        stream = getattr(self.process, name)
        while data := await stream.read(65536):
            async with self._changed:
                setattr(self, name, getattr(self, name) + data.decode())
                self._changed.notify_all()


class Launcher:
    """Starts workers with a directory of their own as TMPDIR, and ends them."""

    def __init__(self, directory: Path) -> None:
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self._workers: list[WorkerProcess] = []

    async def __call__(self, platform: FakePlatform | None, target: str, *flags: str, **env: str) -> WorkerProcess:
        """Start a worker; in queue mode where there is a platform."""
        queue = ["--queue"] if platform else []
        return await self.start("-m", "sprocket", target, "--port", "0", *queue, *flags, platform=platform, **env)

    async def start(self, *arguments: str, platform: FakePlatform | None = None, **env: str) -> WorkerProcess:
        """Start Python with these arguments."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=WORKERS,
            env={**_environment(platform), "TMPDIR": str(self.temporary), **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = WorkerProcess(process)
        self._workers.append(worker)
        return worker

    async def close(self) -> None:
        for worker in self._workers:
            await worker.close()


def _environment(platform: FakePlatform | None) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("TOGETHER_", "SPROCKET_", "PORT"))}
    env["PYTHONWARNINGS"] = "error"
    if platform is None:
        return env
    return {
        **env,
        "TOGETHER_API_KEY": API_KEY,
        "TOGETHER_API_BASE_URL": platform.base_url,
        "TOGETHER_DEPLOYMENT_NAME": "hello",
        "SPROCKET_HEARTBEAT_SECONDS": "0.2",
    }


async def until_exists(*paths: Path) -> None:
    """Wait until a model has left some files."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not all(path.exists() for path in paths):
            await asyncio.sleep(0.01)
