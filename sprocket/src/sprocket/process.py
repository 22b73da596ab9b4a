"""The engine for a model in a process of its own: what the model does cannot keep the worker from answering.

Not while native code holds Python's global lock, and not when the model's process crashes, is killed, or closes its
stdout. The process is watched and spoken to by `child.py`; what runs in it is `host.py`.
"""

from __future__ import annotations

import itertools
import os
from typing import NamedTuple

from .child import Child, End
from .engine import OnExit, OnOutcome, Reply
from .frames import Message
from .job import Job
from .logs import log
from .model import Model
from .model_messages import fault_of_fields, fields_of_job, outcome_of_fields
from .outcome import Exited, Fault

ORDERLY_END_SECONDS = 2.0
"""For a process that has shut its model down to end by itself; then it is killed."""


class _Predict(NamedTuple):
    """A job that the process has in hand."""

    job: Job
    on_outcome: OnOutcome


class ModelProcess:
    """Runs a model in a process. Use inside a running event loop.

    Args:
        model: the model, for what it says of itself; it is set up in the process only.
        command: what to run, which must get to `host.host` with the same model.
    """

    waking_seconds = 0.0
    """The model's process waits for nothing that this one holds."""

    def __init__(self, model: Model, command: list[str]) -> None:
        self.concurrency = model.concurrency
        self._command = command
        self._numbers = itertools.count(1)
        self._predicts: dict[int, _Predict] = {}
        self._child: Child | None = None
        self._on_ready: Reply | None = None
        self._on_exit: OnExit | None = None
        self._on_stopped: Reply | None = None
        self._stopped = False

    def start(self, on_ready: Reply, on_exit: OnExit) -> None:
        """See `Engine`."""
        self._on_ready, self._on_exit = on_ready, on_exit
        try:
            self._child = Child(self._command, os.environ, self._take, self._end)
        except OSError as error:
            self._be_ready(Fault(f"the model's process could not be started: {error}", 1))

    def predict(self, job: Job, on_outcome: OnOutcome) -> None:
        """See `Engine`."""
        number = next(self._numbers)
        self._say({"do": "predict", "number": number, "job": fields_of_job(job)})
        self._predicts[number] = _Predict(job, on_outcome)
        job.touch()

    def interrupt(self, job: Job) -> None:
        """Throw CancelledError into an asynchronous predict; let a synchronous one see that it is cancelled."""
        for number, predict in self._predicts.items():
            if predict.job is job:
                self._say({"do": "interrupt", "number": number})

    def stop(self, on_stopped: Reply) -> None:
        """See `Engine`."""
        self._on_stopped = on_stopped
        self._say({"do": "stop"})

    async def close(self) -> None:
        """See `Engine`. The process is left some time to end only where it has nothing in hand any more."""
        child = self._child
        if child is None:
            return
        idle = self._on_ready is None and not self._predicts
        if not idle or not await child.ended(ORDERLY_END_SECONDS):
            child.kill()
            await child.ended(ORDERLY_END_SECONDS)

    def _say(self, fields: dict[str, object]) -> None:
        if self._child is None:
            raise RuntimeError("the model's process has ended")
        self._child.send(fields)

    def _take(self, message: Message) -> None:
        fields = message.fields
        match fields.get("say"):
            case "ready":
                self._be_ready(fault_of_fields(fields["fault"]))
            case "info":
                if predict := self._predicts.get(fields["number"]):
                    predict.job.add_info(fields["info"])
            case "outcome":
                if predict := self._predicts.pop(fields["number"], None):
                    predict.on_outcome(outcome_of_fields(fields["outcome"], message.tail))
            case "stopped":
                self._be_stopped(fault_of_fields(fields["fault"]))

    def _end(self, end: End) -> None:
        """Take note that the process is gone, and all that it had in hand with it."""
        self._child = None
        if self._on_ready is None and not self._stopped:
            log.error("the model's process %s", end)
        fault = Fault(f"the model's process {end}", end.exit_code or 1)
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
