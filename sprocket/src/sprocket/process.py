"""The engine for a model in a process of its own: what the model does cannot keep the worker from answering.

Not while native code holds Python's global lock, and not when the model's process crashes, is killed, or closes its
stdout. The process is watched and spoken to by `child.py`; what runs in it is `host.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .child import Child, End
from .engine import Eviction, OnExit, OnOutcome, Reply
from .frames import Message
from .job import Job
from .logs import log
from .model import Model
from .model_messages import fault_of_fields, fields_of_job, outcome_of_fields
from .outcome import Exited, Fault, HandedBack

ORDERLY_END_SECONDS = 2.0
"""For a process that has shut its model down to end by itself; then it is killed."""

EVICTION_SECONDS = 10.0
"""For a process that was killed to be gone. What it holds, a GPU's memory too, is free only then."""


OnCalls = Callable[[int], None]


class _Predict(NamedTuple):
    """A job that the process has in hand."""

    job: Job
    on_outcome: OnOutcome


class ModelProcess:
    """Runs a model in a process. Use inside a running event loop.

    Args:
        model: the model, for what it says of itself; it is set up in the process only.
        command: what to run, which must get to `host.host` with the same model.
        environ: the process's environment; None: this one's.
        name: what to call it in log lines and errors.

    Attributes:
        end: how it ended; None as long as it has not.
    """

    waking_seconds = 0.0
    """The model's process waits for nothing that this one holds."""

    def __init__(
        self,
        model: Model,
        command: list[str],
        environ: Mapping[str, str] | None = None,
        *,
        name: str = "the model's process",
    ) -> None:
        self.concurrency = model.concurrency
        self.end: End | None = None
        self._command = command
        self._environ = environ
        self._name = name
        self._on_calls: dict[int, OnCalls] = {}
        self._numbers = itertools.count(1)
        self._predicts: dict[int, _Predict] = {}
        self._child: Child | None = None
        self._evicted: Child | None = None
        self._starting: asyncio.Task[None] | None = None
        self._on_ready: Reply | None = None
        self._on_exit: OnExit | None = None
        self._on_stopped: Reply | None = None
        self._stopped = False

    def start(self, on_ready: Reply, on_exit: OnExit) -> None:
        """See `Engine`."""
        self._on_ready, self._on_exit = on_ready, on_exit
        self._starting = asyncio.ensure_future(self._start())

    def predict(self, job: Job, on_outcome: OnOutcome) -> None:
        """See `Engine`."""
        number = next(self._numbers)
        self._say({"do": "predict", "number": number, "job": fields_of_job(job)})
        self._predicts[number] = _Predict(job, on_outcome)
        job.touch()

    def interrupt(self, job: Job) -> None:
        """Throw CancelledError into an asynchronous predict; let a synchronous one see that it is cancelled."""
        for number in self._numbers_of(job):
            self._say({"do": "interrupt", "number": number})

    def hold(self, job: Job, on_calls: OnCalls) -> None:
        """Let no call of `cancelled()` through; `on_calls` gets how many there were. Nothing if predict has ended."""
        for number in self._numbers_of(job):
            self._on_calls[number] = on_calls
            self._say({"do": "hold", "number": number})

    def settle(self, job: Job, first: int) -> None:
        """Let calls of `cancelled()` through; those from number `first` on say True."""
        for number in self._numbers_of(job):
            self._say({"do": "settle", "number": number, "first": first})

    def evict(self, job: Job) -> Eviction:
        """See `Engine`."""
        self._evicted, self._child = self._child, None
        if self._evicted is not None:
            self._evicted.disown()
        predicts, self._predicts = self._predicts, {}
        for predict in predicts.values():
            if predict.job is not job:
                predict.on_outcome(HandedBack())
        return Eviction.DONE

    def stop(self, on_stopped: Reply) -> None:
        """See `Engine`."""
        self._on_stopped = on_stopped
        if self._child is None:
            self._be_stopped(None)
        else:
            self._say({"do": "stop"})

    @property
    def pid(self) -> int | None:
        """The process's number; None where there is none."""
        return self._child.pid if self._child else None

    def kill(self) -> None:
        """End the process now, which then is no news to anybody."""
        self._stopped = True
        if self._child is not None:
            self._child.kill()

    async def close(self) -> None:
        """See `Engine`. The process is left some time to end only where it has nothing in hand any more."""
        if self._starting is not None:
            self._starting.cancel()
        child = self._child
        if child is None:
            return
        idle = self._on_ready is None and not self._predicts
        if not idle or not await child.ended(ORDERLY_END_SECONDS):
            self.kill()
            await child.ended(ORDERLY_END_SECONDS)

    def _numbers_of(self, job: Job) -> list[int]:
        return [number for number, predict in self._predicts.items() if predict.job is job]

    async def _start(self) -> None:
        if self._evicted is not None and not await self._evicted.ended(EVICTION_SECONDS):
            self._be_ready(Fault(f"{self._name} does not end although it was killed", 1))
            return
        try:
            environ = os.environ if self._environ is None else self._environ
            self._child = Child(self._command, environ, self._take, self._end)
        except OSError as error:
            self._be_ready(Fault(f"{self._name} could not be started: {error}", 1))

    def _say(self, fields: dict[str, object]) -> None:
        if self._child is None:
            raise RuntimeError(f"{self._name} has ended")
        self._child.send(fields)

    def _take(self, message: Message) -> None:
        fields = message.fields
        match fields.get("say"):
            case "ready":
                self._be_ready(fault_of_fields(fields["fault"]))
            case "news":
                if predict := self._predicts.get(fields["number"]):
                    predict.job.add_info(fields["info"])
                    predict.job.add_chunks(fields["chunks"])
            case "held":
                if on_calls := self._on_calls.pop(fields["number"], None):
                    on_calls(fields["calls"])
            case "outcome":
                self._on_calls.pop(fields["number"], None)
                if predict := self._predicts.pop(fields["number"], None):
                    predict.job.measures.memory = fields["memory"]
                    predict.on_outcome(outcome_of_fields(fields["outcome"], message.tail))
            case "stopped":
                self._be_stopped(fault_of_fields(fields["fault"]))

    def _end(self, end: End) -> None:
        """Take note that the process is gone, and all that it had in hand with it."""
        self._child, self.end = None, end
        if self._on_ready is None and not self._stopped:
            log.error("%s %s", self._name, end)
        fault = Fault(f"{self._name} {end}", end.exit_code or 1)
        self._be_ready(fault)
        self._be_stopped(fault)
        predicts, self._predicts = self._predicts, {}
        for predict in predicts.values():
            predict.on_outcome(Exited(end.exit_code))
        if self._on_exit is not None and not self._stopped:
            self._on_exit(end.exit_code)

    def _be_ready(self, fault: Fault | None) -> None:
        on_ready, self._on_ready = self._on_ready, None
        if on_ready is not None:
            on_ready(fault)

    def _be_stopped(self, fault: Fault | None) -> None:
        on_stopped, self._on_stopped = self._on_stopped, None
        if on_stopped is not None:
            self._stopped = True
            on_stopped(fault)
