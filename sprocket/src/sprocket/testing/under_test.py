"""A whole worker in a test: the model, and everything that works its queue, against a queue in the same process.

The worker and the queue live in an event loop in a thread of their own and talk over a real socket; the model has its
own threads, as always. The test's thread submits jobs and waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sprocket.config import Config, PlatformConfig
from sprocket.errors import JobCanceledError, JobFailedError, JobTimeoutError, WorkerEndedError
from sprocket.model import Model
from sprocket.timeouts import timeout
from sprocket.worker import Worker

if TYPE_CHECKING:
    from sprocket.app import Ending, Stop

    from .fake_platform import FakePlatform
    from .fake_queue import FakeJob

T = TypeVar("T")

HEARTBEAT_SECONDS = 0.05
"""A cancel is seen within this time: a test should not wait the 2 s of a real worker."""

GRACE_PERIOD_SECONDS = 5.0
LEFT_OVER_SECONDS = 10.0
"""Beyond the grace period, for what the end of a worker takes by itself."""


@contextlib.contextmanager
def worker(
    model: Worker | type[Worker], *, grace_period_seconds: float = GRACE_PERIOD_SECONDS
) -> Iterator[WorkerUnderTest]:
    """Run a worker for the time of a block, against a queue of its own that nobody else sees.

    Everything is as in production but for the process: claims, heartbeats, cancels, results and files go over HTTP, and
    `concurrency` holds. The block begins when `setup` is over. At its end the worker is drained, as SIGTERM does, and
    shut down. No setting is taken from the environment.

    Example:
        with sprocket.testing.worker(Hello) as hello:
            job = hello.submit({"name": "Ada"})
            assert job.result(timeout_seconds=10) == {"text": "Hello, Ada!"}

    Args:
        model: the worker, as a class or an instance.
        grace_period_seconds: how long jobs in hand may take when the block ends.

    Raises:
        LoadError: `model` is no worker.
        WorkerEndedError: a job was still in hand when the grace period was over.
        Exception: whatever `setup` or `shutdown` raised.
    """
    with tempfile.TemporaryDirectory(prefix="sprocket-test-") as folder:
        under_test = WorkerUnderTest(Model(model, use_torchrun=False), Path(folder), grace_period_seconds)
        under_test.start()
        try:
            yield under_test
        except BaseException:
            # The test's own failure says more than what comes of its worker.
            with contextlib.suppress(Exception):
                under_test.stop()
            raise
        under_test.stop()


class WorkerUnderTest:
    """A running worker and its queue; made by `worker`."""

    def __init__(self, model: Model, folder: Path, grace_period_seconds: float = GRACE_PERIOD_SECONDS) -> None:
        self._model = model
        self._folder = folder
        self._grace_period_seconds = grace_period_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sprocket-testing", daemon=True)
        self._platform: FakePlatform
        self._stop: Stop
        self._life: asyncio.Task[Ending]
        self._port = 0

    @property
    def base_url(self) -> str:
        """Where the worker's own `/health`, `/metrics` and `/generate` are."""
        return f"http://127.0.0.1:{self._port}"

    def submit(
        self, payload: Mapping[str, Any], *, priority: int = 0, info: Mapping[str, Any] | None = None
    ) -> SubmittedJob:
        """Submit a job.

        Args:
            payload: the input, JSON values and `Path`s. A `Path` at any depth is put into the platform's storage: its
                place in the payload is taken by the address there, as in a real job.
            priority: higher is claimed first.
            info: what the submitter notes about the job.

        Raises:
            FileNotFoundError: a `Path` names no file.
            TypeError: something else in it is not JSON.
        """
        as_json = json.loads(json.dumps(payload, default=self._address_of))
        return SubmittedJob(self, self.call(self._platform.submit(as_json, priority, info)))

    def start(self) -> None:
        """Begin, and wait for the end of setup."""
        self._thread.start()
        ending: Ending | None = None
        begun = False
        try:
            ending = self.call(self._begin())
            begun = ending is None
        finally:
            if not begun:
                self._end_loop()
        if ending is not None:
            raise _error_of(ending, "during setup")

    def stop(self) -> None:
        """Drain and end."""
        try:
            ending = self.call(self._finish())
        finally:
            self._end_loop()
        if ending.error is not None:
            raise _error_of(ending, "during shutdown")
        if ending.abrupt:
            raise WorkerEndedError(
                f"a job was still in hand {self._grace_period_seconds:g} s after the worker was asked to stop", None
            )

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine where the worker and the queue live."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def wait(self, condition: Callable[[], object], job: FakeJob, timeout_seconds: float) -> None:
        """Wait until a condition holds for the queue.

        Raises:
            JobTimeoutError: it does not in time.
            WorkerEndedError: the worker has ended, so that it never will.
        """
        waiting = asyncio.ensure_future(self._platform.until(condition, timeout_seconds))
        await asyncio.wait([waiting, self._life], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            code = self._life.result().exit_code
            raise WorkerEndedError(f"the worker ended with exit code {code}, and left the job {job.status}", code)
        try:
            waiting.result()
        except asyncio.TimeoutError:
            raise JobTimeoutError(f"not within {timeout_seconds:g} s: the job is {job.status}") from None

    def local(self, outputs: Any) -> Any:
        """Give outputs with the paths of local files in place of their addresses."""
        if isinstance(outputs, dict):
            return {name: self.local(value) for name, value in outputs.items()}
        if isinstance(outputs, list):
            return [self.local(value) for value in outputs]
        found = self._platform.storage.find(outputs, self._platform.base_url) if isinstance(outputs, str) else None
        return outputs if found is None else str(found)

    async def cancel(self, job: FakeJob) -> None:
        """Ask for a job's cancel."""
        await self._platform.cancel(job)

    def _address_of(self, value: Any) -> str:
        if not isinstance(value, os.PathLike):
            raise TypeError(f"{type(value).__name__} is neither JSON nor a Path: {value!r}")
        path = Path(value)
        if not path.is_file():
            raise FileNotFoundError(f"the payload names the file {path}, which does not exist")
        return self._platform.base_url + self._platform.storage.share(path)

    async def _begin(self) -> Ending | None:
        """Give an ending where there is no worker after setup."""
        # Here, because it takes a third of a second: importing sprocket.testing must not.
        from sprocket.app import App, Stop  # noqa: PLC0415

        from .fake_platform import FakePlatform  # noqa: PLC0415

        self._platform = FakePlatform(self._folder)
        await self._platform.start()
        self._stop = Stop()
        app = App(self._config(), self._model, self._stop)
        self._life = asyncio.create_task(app.run())
        ready = asyncio.ensure_future(app.ready.wait())
        await asyncio.wait([ready, self._life], return_when=asyncio.FIRST_COMPLETED)
        self._port = app.port
        if ready.done():
            return None
        ready.cancel()
        await self._platform.stop()
        return self._life.result()

    async def _finish(self) -> Ending:
        self._stop.ask()
        async with timeout(self._grace_period_seconds + LEFT_OVER_SECONDS):
            ending = await self._life
        await self._platform.stop()
        return ending

    def _config(self) -> Config:
        platform = PlatformConfig(
            base_url=self._platform.base_url,
            api_key=self._platform.api_key,
            deployment="test",
            hostname="test",
            heartbeat_seconds=HEARTBEAT_SECONDS,
        )
        return Config(
            port=0,
            queue=True,
            platform=platform,
            grace_period_seconds=self._grace_period_seconds,
            process=False,  # The command that would start its process is the one that runs the tests.
        )

    def _end_loop(self) -> None:
        self.call(_cancel_the_rest())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SubmittedJob:
    """A job that a test has submitted.

    Attributes:
        id: the request's id, as `Request.id` gives it.
    """

    def __init__(self, owner: WorkerUnderTest, job: FakeJob) -> None:
        self.id = job.request_id
        self._owner = owner
        self._job = job

    @property
    def status(self) -> str:
        """Where it is now: pending, running, done, failed or canceled."""
        return self._job.status

    @property
    def info(self) -> dict[str, Any]:
        """What the submitter and `emit_info` have noted by now; of a failed job also `error` and `traceback`."""
        return dict(self._job.info)

    @property
    def attempts(self) -> int:
        """How often it was claimed."""
        return self._job.attempt

    def cancel(self) -> None:
        """Cancel it: at once while it waits, else the worker is told, as on a real platform."""
        self._owner.call(self._owner.cancel(self._job))

    def wait(self, condition: Callable[[SubmittedJob], object], *, timeout_seconds: float = 10.0) -> None:
        """Wait until something holds for the job: `job.wait(lambda job: job.info.get("step") == "decoding")`.

        Args:
            condition: looked at after everything that happens; must be quick.
            timeout_seconds: for how long.

        Raises:
            JobTimeoutError: it does not hold in time.
            WorkerEndedError: the worker has ended, so that it never will.
        """
        self._owner.call(self._owner.wait(lambda: condition(self), self._job, timeout_seconds))

    def result(self, *, timeout_seconds: float = 10.0) -> dict[str, Any]:
        """Wait for the job's end, and give its outputs.

        Args:
            timeout_seconds: how long to wait.

        Returns:
            The outputs as the submitter would get them, but for files: they are local paths (`str`), and stay until
            the worker's block ends.

        Raises:
            JobFailedError: it failed; the text is the worker's, with the model's traceback.
            JobCanceledError: it was cancelled.
            JobTimeoutError: it has not ended in time.
            WorkerEndedError: the worker ended first; a real platform would run the job again.
        """
        self.wait(lambda job: job.status in ("done", "failed", "canceled"), timeout_seconds=timeout_seconds)
        if self.status == "failed":
            raise JobFailedError(str(self._job.info.get("error")), self._job.info.get("traceback"))
        if self.status == "canceled":
            raise JobCanceledError("the job was cancelled")
        outputs: dict[str, Any] = self._owner.local(self._job.outputs)
        return outputs


def _error_of(ending: Ending, when: str) -> BaseException:
    """Give what the model raised; but not an exit, which would end the test's process."""
    if ending.error is not None and not isinstance(ending.error, SystemExit):
        return ending.error
    return WorkerEndedError(f"the worker ended with exit code {ending.exit_code} {when}", ending.exit_code)


async def _cancel_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
