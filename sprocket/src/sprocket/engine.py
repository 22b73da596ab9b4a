"""Where the model lives: setup once, predicts one after the other or several at a time, shutdown once.

A synchronous model gets a thread for each predict that may run at a time, and all wait on one queue; an asynchronous
one gets a thread with an event loop. Both take callbacks and call them in the model's threads; `Workbench` carries them
over to the main thread. The third engine, `ModelProcess`, has one of these two in a process of its own.
"""

from __future__ import annotations

import asyncio
import enum
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

from .handover import Handover
from .job import Job, active
from .model import Model, awaited
from .outcome import Canceled, Exited, Fault, Outcome, fault_of, outcome_of_exception, outcome_of_value

Reply = Callable[["Fault | None"], None]
OnExit = Callable[[int], None]
OnOutcome = Callable[[Outcome], None]


STUCK_EXIT_CODE = 75
"""Of a worker that ends since its model does not stop; what sysexits.h has for a failure that another try may mend."""


class Eviction(enum.Enum):
    """What has become of a predict that did not stop."""

    DONE = enum.auto()
    """The model's process has been ended: `start` must follow. An outcome does not."""
    HOPELESS = enum.auto()
    """The model is in this process, and only its end would help. No outcome follows."""
    UNDER_WAY = enum.auto()
    """An outcome follows soon, and the worker has to end with it."""


class Engine(Protocol):
    """What runs a model.

    Attributes:
        concurrency: how many predicts may run at a time.
        waking_seconds: about how long an idle thread of the model's needs to begin with a job.
    """

    concurrency: int
    waking_seconds: float

    def start(self, on_ready: Reply, on_exit: OnExit) -> None:
        """Begin setup.

        Args:
            on_ready: gets None, or what went wrong in setup; then the engine is of no more use.
            on_exit: gets an exit code where the model's process is lost later on, whatever it has in hand.
        """

    def predict(self, job: Job, on_outcome: OnOutcome) -> None:
        """Begin one predict; never more than `concurrency` at a time."""

    def interrupt(self, job: Job) -> None:
        """Stop a running predict where that is possible from outside."""

    def evict(self, job: Job) -> Eviction:
        """Get rid of a predict that does not stop. Other jobs that are lost with it get `HandedBack`."""

    def stop(self, on_stopped: Reply) -> None:
        """Begin shutdown; `on_stopped` gets None, or what went wrong in shutdown."""

    async def close(self) -> None:
        """Let go of everything, whatever the model is at."""


def threads_for(model: Model) -> SyncThreads | AsyncThread:
    """Choose the engine in this process that suits the model."""
    return AsyncThread(model) if model.is_async else SyncThreads(model)


class SyncThreads:
    """Runs a synchronous model. The first thread sets it up and shuts it down; where there is only one, it does all."""

    waking_seconds = 0.00001
    """The system makes 0.06 ms of it, which is enough."""

    def __init__(self, model: Model) -> None:
        self.concurrency = model.concurrency
        self._model = model
        # SimpleQueue wakes a waiting thread directly, without a lock dance in Python: the handoff takes microseconds.
        self._jobs: queue.SimpleQueue[tuple[Job, OnOutcome] | None] = queue.SimpleQueue()
        self._others: list[threading.Thread] = []
        self._on_stopped: Reply | None = None

    def start(self, on_ready: Reply, on_exit: OnExit) -> None:  # noqa: ARG002 - this process is not lost to itself
        """See `Engine`."""
        _start_thread(self._live, on_ready)

    def predict(self, job: Job, on_outcome: OnOutcome) -> None:
        """See `Engine`."""
        self._jobs.put((job, on_outcome))

    def interrupt(self, job: Job) -> None:
        """Nothing: synchronous code asks `cancelled()` by itself."""

    def evict(self, job: Job) -> Eviction:  # noqa: ARG002 - there is nothing to be done
        """See `Engine`. A thread cannot be ended from outside; it ends with the process."""
        return Eviction.HOPELESS

    def stop(self, on_stopped: Reply) -> None:
        """See `Engine`."""
        self._on_stopped = on_stopped
        for _ in range(self.concurrency):
            self._jobs.put(None)

    async def close(self) -> None:
        """Nothing: see `evict`."""

    def _live(self, on_ready: Reply) -> None:
        fault = _fault_of("setup", self._set_up)
        on_ready(fault)
        if fault is None:
            self._work()
        for other in self._others:
            other.join()
        if self._on_stopped is not None:
            self._on_stopped(_fault_of("shutdown", self._model.shutdown))

    def _set_up(self) -> None:
        self._model.setup()
        self._others = [_start_thread(self._work) for _ in range(self.concurrency - 1)]

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """Wait for a job and run it; give whether to go on. A function, so that an idle thread keeps nothing of it."""
        work = self._jobs.get()
        if work is None:
            return False
        job, on_outcome = work
        outcome = self._outcome_of(job)
        on_outcome(outcome)
        return not isinstance(outcome, Exited)

    def _outcome_of(self, job: Job) -> Outcome:
        if job.cancel_requested:
            return Canceled()
        with active(job):
            try:
                return outcome_of_value(job, self._model.predict(job))
            except BaseException as error:  # noqa: BLE001 - whatever the model raises is the job's outcome
                return outcome_of_exception(job, error)


class AsyncThread:
    """Runs a model with coroutines, on an event loop of its own."""

    waking_seconds = 0.0001
    """An event loop takes longer to wake up, and lets go of the global lock on its way."""

    def __init__(self, model: Model) -> None:
        self.concurrency = model.concurrency
        self._model = model
        self._loop = asyncio.new_event_loop()
        self._handover = Handover(self._loop)
        self._tasks: dict[Job, asyncio.Task[None]] = {}
        self._on_stopped: Reply | None = None

    def start(self, on_ready: Reply, on_exit: OnExit) -> None:  # noqa: ARG002 - this process is not lost to itself
        """See `Engine`."""
        _start_thread(self._live, on_ready)

    def predict(self, job: Job, on_outcome: OnOutcome) -> None:
        """See `Engine`."""
        self._handover.call(self._begin, job, on_outcome)

    def interrupt(self, job: Job) -> None:
        """Throw CancelledError into the predict, at its next await."""
        self._handover.call(self._cancel, job)

    def evict(self, job: Job) -> Eviction:  # noqa: ARG002 - as there
        """See `SyncThreads`."""
        return Eviction.HOPELESS

    def stop(self, on_stopped: Reply) -> None:
        """See `Engine`."""
        self._on_stopped = on_stopped
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def close(self) -> None:
        """See `SyncThreads`."""

    def _live(self, on_ready: Reply) -> None:
        asyncio.set_event_loop(self._loop)
        fault = self._loop.run_until_complete(_awaited_fault_of("setup", self._model.setup))
        on_ready(fault)
        if fault is None:
            self._loop.run_forever()
        if self._on_stopped is not None:
            self._on_stopped(self._loop.run_until_complete(_awaited_fault_of("shutdown", self._model.shutdown)))
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
        return await awaited(self._model.predict(job))


def _start_thread(live: Callable[..., None], *arguments: Any) -> threading.Thread:
    # A daemon: a predict that never returns must not keep a stopped worker alive.
    thread = threading.Thread(target=live, args=arguments, name="sprocket-model", daemon=True)
    thread.start()
    return thread


def _fault_of(method: str, call: Callable[[], Any]) -> Fault | None:
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - handed to the main thread, which decides
        return fault_of(method, error)
    return None


async def _awaited_fault_of(method: str, call: Callable[[], Any]) -> Fault | None:
    try:
        await awaited(call())
    except BaseException as error:  # noqa: BLE001 - handed to the main thread, which decides
        return fault_of(method, error)
    return None
