"""Where a job is worked on: files fetched, a free slot awaited, predict run by the model, files published.

Jobs from the queue and requests over HTTP come through here alike.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import mimetypes
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .backoff import Backoff
from .config import Config
from .downloads import Downloader, safe_name
from .engine import Engine
from .errors import InputError, PlatformAwayError, PlatformError, StaleAttemptError
from .handover import Handover
from .job import Job
from .logs import log
from .metrics import Metrics
from .outcome import Canceled, Done, Exited, Failed, Outcome, Stale, failure
from .outputs import Encoded, FileOutput
from .platform import Platform
from .scratch import Scratch
from .slots import Slots

UPLOAD_SECONDS = 600.0
"""For how long a file is offered to a platform that does not take it: as long as a result is, for it is as dear."""
UPLOAD_BACKOFF = Backoff(first_seconds=0.2, longest_seconds=5.0)

DATA_URI_LIMIT_BYTES = 64 * 1024**2
"""A bigger file in an HTTP answer would take several times its size in memory."""


class _Predict(NamedTuple):
    """A job that has been handed to the model."""

    job: Job
    outcome: asyncio.Future[Outcome]
    started_at: float


class Workbench:
    """Runs jobs on the engine, as many at a time as it takes."""

    def __init__(self, config: Config, engine: Engine, platform: Platform | None, metrics: Metrics) -> None:
        self._engine = engine
        self._platform = platform
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._handover = Handover(self._loop)
        self.slots = Slots(engine.concurrency)
        self._begun: dict[Job, _Predict] = {}
        self._downloader = Downloader(config, platform)
        self._scratch = Scratch()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Gets the exit code when a predict has asked for the end of the process."""

    async def close(self) -> None:
        """Close connections, remove files."""
        await self._downloader.close()
        self._scratch.close()

    async def start(self) -> BaseException | None:
        """Set the model up; give what setup raised."""
        return await self._called_back(self._engine.start)

    async def stop(self) -> BaseException | None:
        """Shut the model down; give what shutdown raised."""
        return await self._called_back(self._engine.stop)

    def begin(self, job: Job) -> None:
        """Hand a job to the model right now, where it needs no files and a slot is free.

        `work` must follow, and does the rest. It would do all of it, but only when the event loop comes to it.
        """
        if not self._downloader.remote_names(job.payload) and self.slots.take_if_free():
            # What goes wrong here goes wrong in `work` again, which can tell.
            with contextlib.suppress(Exception):
                self._begun[job] = self._start(job)

    def let_begin(self) -> None:
        """Stand back for the moment in which the model's thread wakes up and begins with a job.

        It needs Python's global lock for that, and this thread would hold it: without this, predict began 0.1 ms later.
        """
        time.sleep(self._engine.waking_seconds)

    def has_begun(self, job: Job) -> bool:
        """Whether `begin` has handed the job to the model."""
        return job in self._begun

    async def work(self, job: Job) -> Outcome:
        """Take one job from its payload to its outcome; never raises for what the job does."""
        self._metrics.in_flight.add(job)
        directory: Path | None = None
        try:
            predict = self._begun.pop(job, None)
            if predict is None:
                if self._downloader.remote_names(job.payload):
                    directory = self._scratch.make()
                    await self._fetch(job, directory)
                await self.slots.take()
                predict = self._start(job)
            return await self._publish(job, await self._end_of(predict))
        except StaleAttemptError as error:
            return Stale(str(error))
        except InputError as error:
            return Canceled() if job.cancel_requested else failure(error)
        except Exception as error:  # noqa: BLE001 - a full disk, or a mistake of ours: the worker goes on
            log.error("the job could not be worked on", exc_info=error, extra=job.tag)
            return failure(error)
        finally:
            self._metrics.in_flight.discard(job)
            if directory is not None:
                await self._scratch.remove(directory)

    async def _fetch(self, job: Job, directory: Path) -> None:
        fetching = asyncio.ensure_future(self._downloader.fetch(job.payload, directory))
        with job.interruptible(fetching.cancel):
            try:
                job.payload = await fetching
            except asyncio.CancelledError:
                fetching.cancel()
                if not job.cancel_requested:
                    raise
                raise InputError("cancelled") from None

    def _start(self, job: Job) -> _Predict:
        """Hand the job to the model; a slot must have been taken."""
        predict = _Predict(job, self._loop.create_future(), time.perf_counter())
        try:
            self._engine.predict(job, self._handover.to(predict.outcome))
        except BaseException:
            self.slots.give_back()
            raise
        return predict

    async def _end_of(self, predict: _Predict) -> Outcome:
        """Wait until the model is done with the job, and give the slot back."""
        job = predict.job
        try:
            with job.interruptible(lambda: self._engine.interrupt(job)):
                outcome = await predict.outcome
        finally:
            self.slots.give_back()
        self._metrics.observe_predict(time.perf_counter() - predict.started_at)
        if isinstance(outcome, Exited):
            log.error("predict ended the process with exit code %d", outcome.code, extra=job.tag)
            if not self.exited.done():
                self.exited.set_result(outcome.code)
        elif isinstance(outcome, Failed):
            log.error("predict failed: %s", outcome.traceback or outcome.error, extra=job.tag)
        return outcome

    async def _publish(self, job: Job, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Done) or not any(isinstance(v, FileOutput) for v in outcome.outputs.values()):
            return outcome
        published: Encoded = {}
        for name, value in outcome.outputs.items():
            if isinstance(value, FileOutput):
                try:
                    published[name] = _quoted(await self._address_of(job, value))
                except StaleAttemptError:
                    raise
                except (PlatformError, ValueError, OSError) as error:
                    return Failed(f"outputs[{name!r}]: {value.path.name} could not be published: {error}")
            else:
                published[name] = value
        return Done(published)

    async def _address_of(self, job: Job, file: FileOutput) -> str:
        if self._platform is None or not job.queued:
            return await self._loop.run_in_executor(None, data_uri, file.path)
        name = f"{job.id}-{safe_name(file.path.name)}"
        attempt = None if job.attempt_token is None else (job.id, job.attempt_token)
        gives_up_at = time.monotonic() + UPLOAD_SECONDS
        failures = 0
        while True:
            try:
                return await self._platform.upload(name, file.path, attempt)
            except PlatformAwayError as error:  # noqa: PERF203 - tries again
                failures += 1
                if job.cancel_requested or time.monotonic() > gives_up_at:
                    raise
                if failures == 1:
                    log.warning("%s not uploaded yet, trying on: %s", file.path.name, error, extra=job.tag)
                await asyncio.sleep(UPLOAD_BACKOFF.pause_seconds(failures))

    async def _called_back(
        self, call: Callable[[Callable[[BaseException | None], None]], None]
    ) -> BaseException | None:
        reply: asyncio.Future[BaseException | None] = self._loop.create_future()
        call(self._handover.to(reply))
        return await reply


def data_uri(path: Path) -> str:
    """Give a file as a `data:` URI in base64.

    Raises:
        ValueError: it is too large for that.
    """
    if path.stat().st_size > DATA_URI_LIMIT_BYTES:
        raise ValueError(f"a file in an HTTP answer may have at most {DATA_URI_LIMIT_BYTES} bytes")
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _quoted(text: str) -> str:
    return f'"{text}"'
