"""The thread in which the model lives: setup, every predict and shutdown, one after the other.

A synchronous model gets a thread that waits on a queue of calls; an asynchronous one gets a thread with an event loop.
Both take callbacks and call them in the model's thread; `Workbench` carries them over to the main thread. A pool of
processes (one per GPU) or several predicts at a time would be further engines behind the same protocol.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

from .job import Job, active
from .model import Model
from .outcome import Canceled, Exited, Outcome, outcome_of_exception, outcome_of_value

Reply = Callable[["BaseException | None"], None]
OnOutcome = Callable[[Outcome], None]


class Engine(Protocol):
    """What runs a model."""

    def start(self, on_ready: Reply) -> None:
        """Begin setup; `on_ready` gets None, or what setup raised (the thread has ended then)."""

    def predict(self, job: Job, on_outcome: OnOutcome) -> None:
        """Begin one predict; never more than one at a time."""

    def interrupt(self, job: Job) -> None:
        """Stop the running predict where that is possible from outside."""

    def stop(self, on_stopped: Reply) -> None:
        """Begin shutdown; `on_stopped` gets None, or what shutdown raised."""


def engine_for(model: Model) -> Engine:
    """Choose the engine that suits the model."""
    return AsyncThread(model) if model.is_async else SyncThread(model)


class SyncThread:
    """Runs a synchronous model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        # SimpleQueue wakes the waiting thread directly, without a lock dance in Python: the handoff takes microseconds.
        self._calls: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()

    def start(self, on_ready: Reply) -> None:
        """See `Engine`."""
        # A daemon: a predict that never returns must not keep a stopped worker alive.
        threading.Thread(target=self._live, args=(on_ready,), name="sprocket-model", daemon=True).start()

    def predict(self, job: Job, on_outcome: OnOutcome) -> None:
        """See `Engine`."""
        self._calls.put(lambda: self._predict(job, on_outcome))

    def interrupt(self, job: Job) -> None:
        """Nothing: synchronous code asks `cancelled()` by itself."""

    def stop(self, on_stopped: Reply) -> None:
        """See `Engine`."""
        self._calls.put(lambda: self._shutdown(on_stopped))

    def _live(self, on_ready: Reply) -> None:
        error = _error_of(self._model.setup)
        on_ready(error)
        goes_on = error is None
        while goes_on:
            goes_on = self._calls.get()()

    def _predict(self, job: Job, on_outcome: OnOutcome) -> bool:
        if job.cancel_requested:
            on_outcome(Canceled())
            return True
        with active(job):
            try:
                outcome = outcome_of_value(job, self._model.predict(job))
            except BaseException as error:  # noqa: BLE001 - whatever the model raises is the job's outcome
                outcome = outcome_of_exception(job, error)
        on_outcome(outcome)
        return not isinstance(outcome, Exited)

    def _shutdown(self, on_stopped: Reply) -> bool:
        on_stopped(_error_of(self._model.shutdown))
        return False


class AsyncThread:
    """Runs a model with coroutines, on an event loop of its own."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[Job, asyncio.Task[None]] = {}
        self._on_stopped: Reply | None = None

    def start(self, on_ready: Reply) -> None:
        """See `Engine`."""
        threading.Thread(target=self._live, args=(on_ready,), name="sprocket-model", daemon=True).start()

    def predict(self, job: Job, on_outcome: OnOutcome) -> None:
        """See `Engine`."""
        self._loop.call_soon_threadsafe(self._begin, job, on_outcome)

    def interrupt(self, job: Job) -> None:
        """Throw CancelledError into the predict, at its next await."""
        self._loop.call_soon_threadsafe(self._cancel, job)

    def stop(self, on_stopped: Reply) -> None:
        """See `Engine`."""
        self._on_stopped = on_stopped
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _live(self, on_ready: Reply) -> None:
        asyncio.set_event_loop(self._loop)
        error = self._loop.run_until_complete(_awaited_error_of(self._model.setup))
        on_ready(error)
        if error is None:
            self._loop.run_forever()
        if self._on_stopped is not None:
            self._on_stopped(self._loop.run_until_complete(_awaited_error_of(self._model.shutdown)))
        self._loop.run_until_complete(self._cancel_leftovers())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _cancel_leftovers(self) -> None:
        """End what the model left running, as `asyncio.run` would."""
        leftovers = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in leftovers:
            task.cancel()
        await asyncio.gather(*leftovers, return_exceptions=True)

    def _begin(self, job: Job, on_outcome: OnOutcome) -> None:
        task = self._loop.create_task(self._predict(job, on_outcome))
        self._tasks[job] = task

    def _cancel(self, job: Job) -> None:
        task = self._tasks.get(job)
        if task is not None:
            task.cancel()

    async def _predict(self, job: Job, on_outcome: OnOutcome) -> None:
        outcome: Outcome
        with active(job):
            try:
                outcome = outcome_of_value(job, await self._result(job))
            except BaseException as error:  # noqa: BLE001 - whatever the model raises is the job's outcome
                outcome = outcome_of_exception(job, error)
        del self._tasks[job]
        on_outcome(outcome)

    async def _result(self, job: Job) -> Any:
        if job.cancel_requested:
            raise asyncio.CancelledError
        return await _awaited(self._model.predict(job))


def _error_of(call: Callable[[], Any]) -> BaseException | None:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - handed to the main thread, which decides
        return error
    return None


async def _awaited_error_of(call: Callable[[], Any]) -> BaseException | None:
    try:
        await _awaited(call())
    except BaseException as error:  # noqa: BLE001 - handed to the main thread, which decides
        return error
    return None


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
