"""Where a job is worked on: files fetched, a free slot awaited, predict run by the model, files published.

Jobs from the queue and requests over HTTP come through here alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

from .engine import Engine, Reply
from .errors import InputError
from .files import Files
from .handover import Handover
from .job import Job
from .logs import log
from .metrics import Metrics
from .outcome import Canceled, Exited, Failed, Fault, HandedBack, Outcome, failure
from .slots import Slots


class _Predict(NamedTuple):
    """A job that has been handed to the model."""

    job: Job
    outcome: asyncio.Future[Outcome]
    started_at: float


class Workbench:
    """Runs jobs on the engine, as many at a time as it takes."""

    def __init__(self, engine: Engine, files: Files, metrics: Metrics) -> None:
        self._engine = engine
        self._files = files
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._handover = Handover(self._loop)
        self.slots = Slots(engine.concurrency)
        self._begun: dict[Job, _Predict] = {}
        self.ending = False
        """The model is gone: nothing new begins, and what it leaves is still being told."""
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Gets the exit code when the worker is to end because of its model."""

    async def start(self) -> Fault | None:
        """Set the model up; give what went wrong."""
        fault = await self._files.start()
        return fault or await self._called_back(lambda on_ready: self._engine.start(on_ready, self._exit))

    async def stop(self) -> Fault | None:
        """Shut the model down; give what went wrong."""
        return await self._called_back(self._engine.stop)

    def begin(self, job: Job) -> None:
        """Hand a job to the model right now, where it needs no files and a slot is free.

        `work` must follow, and does the rest. It would do all of it, but only when the event loop comes to it.
        """
        if not self.ending and not self._files.has_inputs(job) and self.slots.take_if_free():
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
        """Take one job from its payload to its outcome; never raises for what the job does.

        `told` must follow.
        """
        self._metrics.in_flight.add(job)
        try:
            predict = self._begun.pop(job, None) or await self._begin(job)
            if predict is None:
                return HandedBack()
            try:
                return await self._files.publish(job, await self._end_of(predict))
            finally:
                # Only now: the next predict may well write its outputs to the same paths.
                self.slots.give_back()
        except InputError as error:
            return Canceled() if job.cancel_requested else failure(error)
        except Exception as error:  # noqa: BLE001 - a full disk, or a mistake of ours: the worker goes on
            log.error("the job could not be worked on", exc_info=error, extra=job.tag)
            return failure(error)
        finally:
            self._metrics.in_flight.discard(job)
            await self._files.clear(job)

    def told(self, outcome: Outcome) -> None:
        """Take note that an outcome has been reported: one that came with the model's end now ends the worker."""
        if isinstance(outcome, Failed) and outcome.exit_code is not None:
            self._exit(outcome.exit_code)

    async def _begin(self, job: Job) -> _Predict | None:
        """Hand a job to the model as soon as its files and a slot are there; None where the model is gone by then."""
        await self._files.fetch(job)
        await self.slots.take()
        if self.ending:
            self.slots.give_back()
            return None
        return self._start(job)

    def _start(self, job: Job) -> _Predict:
        """Hand the job to the model; a slot must have been taken."""
        job.keeps_outputs = self._files.finishes_outputs
        predict = _Predict(job, self._loop.create_future(), time.perf_counter())
        try:
            self._engine.predict(job, self._handover.to(predict.outcome))
        except BaseException:
            self.slots.give_back()
            raise
        return predict

    async def _end_of(self, predict: _Predict) -> Outcome:
        """Wait until the model is done with the job."""
        job = predict.job
        with job.interruptible(lambda: self._engine.interrupt(job)):
            outcome = await predict.outcome
        self._metrics.observe_predict(time.perf_counter() - predict.started_at)
        if isinstance(outcome, Exited):
            log.error("predict ended the process with exit code %d", outcome.code, extra=job.tag)
            self._exit(outcome.code)
        elif isinstance(outcome, Failed):
            self.ending = self.ending or outcome.exit_code is not None
            log.error("predict failed: %s", outcome.traceback or outcome.error, extra=job.tag)
        return outcome

    def _exit(self, code: int) -> None:
        self.ending = True
        if not self.exited.done():
            self.exited.set_result(code)

    async def _called_back(self, call: Callable[[Reply], None]) -> Fault | None:
        reply: asyncio.Future[Fault | None] = self._loop.create_future()
        call(self._handover.to(reply))
        return await reply
