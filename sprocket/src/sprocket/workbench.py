"""Where a job is worked on: files fetched, a free slot awaited, predict run by the model, files published.

Jobs from the queue and requests over HTTP come through here alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from .engine import STUCK_EXIT_CODE, Engine, Eviction, Reply
from .errors import InputError
from .files import Files
from .handover import Handover
from .job import Job
from .logs import log
from .measures import PREDICT
from .metrics import Metrics
from .outcome import Canceled, Exited, Failed, Fault, HandedBack, Outcome, failure
from .pace import Pace
from .predict import Patience, Predict
from .slots import Slots


class Workbench:
    """Runs jobs on the engine, as many at a time as it takes.

    Args:
        engine: where the model lives.
        patience: how long a predict may take.
        files: the files of all jobs.
        metrics: where to count.
    """

    def __init__(self, engine: Engine, patience: Patience, files: Files, metrics: Metrics) -> None:
        self._engine = engine
        self._patience = patience
        self._files = files
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._handover = Handover(self._loop)
        self.slots = Slots(engine.concurrency)
        self.pace = Pace()
        self._begun: dict[Job, Predict] = {}
        self._open = asyncio.Event()
        """Set unless the model is being set up: then jobs have to wait."""
        self._replacing: asyncio.Task[None] | None = None
        self.on_replacing: Callable[[], None] | None = None
        """Told that no jobs are wanted until the model is ready again."""
        self.ending = False
        """The model is gone: nothing new begins, and what it leaves is still being told."""
        self.exited: asyncio.Future[int] = self._loop.create_future()
        """Gets the exit code when the worker is to end because of its model."""

    async def start(self) -> Fault | None:
        """Set the model up; give what went wrong."""
        return await self._files.start() or await self._set_up()

    async def stop(self) -> Fault | None:
        """Shut the model down; give what went wrong."""
        return await self._called_back(self._engine.stop)

    @property
    def ready(self) -> bool:
        """Whether the model is set up."""
        return self._open.is_set()

    async def until_ready(self) -> None:
        """Wait until the model is set up, or is gone for good."""
        await self._open.wait()

    def begin(self, job: Job) -> None:
        """Hand a job to the model right now, where it needs no files and a slot is free.

        `work` must follow, and does the rest. It would do all of it, but only when the event loop comes to it.
        """
        if self.ready and not self.ending and not self._files.has_inputs(job) and self.slots.take_if_free():
            with contextlib.suppress(Exception):  # it goes wrong in `work` again, which can tell
                self._begun[job] = self._start(job)

    def let_begin(self) -> None:
        """Stand back for the moment in which the model's thread wakes up and begins with a job.

        It needs Python's global lock for that, and this thread would hold it: without this, predict began 0.1 ms later.
        """
        time.sleep(self._engine.waking_seconds)

    def has_begun(self, job: Job) -> bool:
        """Whether `begin` has handed the job to the model."""
        return job in self._begun

    async def work(self, job: Job, patience_seconds: float | None = None) -> Outcome:
        """Take one job from its payload to its outcome; never raises for what the job does.

        `told` must follow.

        Args:
            job: the job.
            patience_seconds: how long it may wait for the model, before it is handed back; None: as long as it takes.
        """
        self._metrics.in_flight.add(job)
        try:
            predict = self._begun.pop(job, None) or await self._begin(job, patience_seconds)
            if predict is None:
                return HandedBack()
            try:
                outcome = await self._end_of(predict)
                return await self._publish(job, outcome) if self._files.has_outputs(outcome) else outcome
            finally:
                # Only now: the next predict may well write its outputs to the same paths.
                self.slots.give_back()
                self.pace.note(predict.seconds())
        except InputError as error:
            return Canceled() if job.cancel_requested else failure(error)
        except Exception as error:  # noqa: BLE001 - a full disk, or a mistake of ours: the worker goes on
            log.error("the job could not be worked on", exc_info=error, extra=job.tag)
            return failure(error)
        finally:
            self._metrics.in_flight.discard(job)
            if self._files.has_fetched(job):
                await self._files.clear(job)

    async def _publish(self, job: Job, outcome: Outcome) -> Outcome:
        with job.measures.step("upload"):
            return await self._files.publish(job, outcome)

    def told(self, outcome: Outcome) -> None:
        """Take note that an outcome has been reported: one that came with the model's end now ends the worker."""
        if isinstance(outcome, (Failed, Canceled)) and outcome.exit_code is not None:
            self._exit(outcome.exit_code)

    async def _begin(self, job: Job, patience_seconds: float | None) -> Predict | None:
        """Hand a job to the model as soon as its files and a slot are there; None where it is to be handed back."""
        if self._files.has_inputs(job):
            with job.measures.step("download"):
                await self._files.fetch(job)
        if not await self.slots.take(patience_seconds):
            self.pace.broken()
            return None
        await self._open.wait()
        if self.ending:
            self.slots.give_back()
            return None
        return self._start(job)

    def _start(self, job: Job) -> Predict:
        """Hand the job to the model; a slot must have been taken."""
        job.keeps_outputs = self._files.finishes_outputs
        predict = Predict(job, self._patience, self._engine.interrupt, self._give_up)
        try:
            self._engine.predict(job, self._handover.to(predict.outcome))
        except BaseException:
            self.slots.give_back()
            raise
        return predict

    async def _end_of(self, predict: Predict) -> Outcome:
        """Wait until the model is done with the job."""
        job = predict.job
        outcome = await predict.end()
        job.over = True
        self._metrics.observe_predict(predict.seconds())
        job.measures.add(PREDICT, predict.seconds())
        if isinstance(outcome, Exited):
            log.error("predict ended the process with exit code %d", outcome.code, extra=job.tag)
            self._exit(outcome.code)
        elif isinstance(outcome, (Failed, Canceled)):
            self.ending = self.ending or outcome.exit_code is not None
        if isinstance(outcome, Failed) and outcome.input_path is not None:
            log.warning("the input was refused: %s", outcome.error, extra=job.tag)
        elif isinstance(outcome, Failed):
            log.error("predict failed: %s", outcome.traceback or outcome.error, extra=job.tag)
        return outcome

    def _give_up(self, predict: Predict) -> bool:
        """Take the model from a predict that does not stop: in another process, or by ending this one.

        Returns:
            Whether an outcome follows all the same.
        """
        predict.job.over = True
        log.error("predict goes on although it was told to stop: the model is ended", extra=predict.job.tag)
        eviction = self._engine.evict(predict.job)
        if eviction is Eviction.HOPELESS:
            self._exit(STUCK_EXIT_CODE)
        elif eviction is Eviction.DONE:
            self._open.clear()
            if self.on_replacing is not None:
                self.on_replacing()
            self._replacing = self._loop.create_task(self._replace())
        return eviction is Eviction.UNDER_WAY

    async def _set_up(self) -> Fault | None:
        fault = await self._called_back(lambda on_ready: self._engine.start(on_ready, self._exit))
        if fault is None:
            self._open.set()
        return fault

    async def _replace(self) -> None:
        started_at = time.monotonic()
        fault = await self._set_up()
        if fault is None:
            log.info("the model is ready again after %.1f s", time.monotonic() - started_at)
        else:
            log.error("%s", fault.text)
            self._exit(fault.exit_code)

    def _exit(self, code: int) -> None:
        self.ending = True
        if not self.exited.done():
            self.exited.set_result(code)
        self._open.set()

    async def _called_back(self, call: Callable[[Reply], None]) -> Fault | None:
        reply: asyncio.Future[Fault | None] = self._loop.create_future()
        call(self._handover.to(reply))
        return await reply
