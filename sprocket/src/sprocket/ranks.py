"""The engine for a model on several GPUs: a process for each, its rank; all run the same setup and the same predicts.

Each rank is a `ModelProcess`; what they say of a job is put together by `verdict`. A rank that dies, or goes on when it
should have ended, fails the job, with the stacks of all, and ends the worker.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .accord import first_cancelled
from .engine import STUCK_EXIT_CODE, Eviction, OnExit, OnOutcome, Reply
from .job import Job
from .logs import log
from .model import Model
from .model_messages import fields_of_job, job_of_fields
from .outcome import Canceled, Failed, Fault, Outcome
from .process import ModelProcess
from .rank_environment import rank_environment, reserve_port
from .scratch import Scratch
from .stacks import stacks_of, stacks_worth_reading
from .verdict import lags, silence, verdict

STACKS_LIMIT_CHARS = 16_000
"""Of all ranks together: a job's info holds more, but is read by people, and sent with every look at the job."""

EXIT_SILENT = 1


class _Rank(NamedTuple):
    """One of the processes."""

    number: int
    process: ModelProcess
    stacks: Path


class _Predict:
    """A job that the ranks have in hand, each its own copy: what another than rank 0 emits goes nowhere."""

    def __init__(self, job: Job, ranks: int, on_outcome: OnOutcome) -> None:
        self.jobs = [job, *(job_of_fields(fields_of_job(job)) for _ in range(1, ranks))]
        self.on_outcome = on_outcome
        self.outcomes: dict[int, Outcome] = {}
        self.calls: dict[int, int] = {}
        self.cancelling = False
        self.patience: asyncio.TimerHandle | None = None


class Ranks:
    """Runs a model in several processes. Use inside a running event loop, after `stacks.ignore_asking`.

    Args:
        model: the model, for what it says of itself; it is set up in the ranks only.
        command: what to run, which must get to `host.host` with the same model.
        count: how many ranks.
        patience_seconds: how long a rank may go on when it should have ended.
    """

    concurrency = 1
    waking_seconds = 0.0

    def __init__(self, model: Model, command: list[str], count: int, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._port = reserve_port()
        self._scratch = Scratch()
        self._directory = self._scratch.make()
        self._ranks = [self._rank(number, count, model, command) for number in range(count)]
        self._on_ready: Reply | None = None
        self._on_exit: OnExit | None = None
        self._not_ready = count
        self._predict: _Predict | None = None
        self._failing: asyncio.Task[None] | None = None

    def start(self, on_ready: Reply, on_exit: OnExit) -> None:
        """See `Engine`."""
        self._on_ready, self._on_exit = on_ready, on_exit
        for rank in self._ranks:
            rank.process.start(partial(self._take_ready, rank), partial(self._take_end, rank))

    def predict(self, job: Job, on_outcome: OnOutcome) -> None:
        """See `Engine`."""
        predict = self._predict = _Predict(job, len(self._ranks), on_outcome)
        for rank, copy in zip(self._ranks, predict.jobs, strict=True):
            rank.process.predict(copy, partial(self._take_outcome, predict, rank))

    def interrupt(self, job: Job) -> None:
        """Let `cancelled()` say so, in all ranks at the same call."""
        predict = self._predict
        if predict is None or predict.cancelling or predict.jobs[0] is not job:
            return
        predict.cancelling = True
        for rank in self._ranks:
            rank.process.hold(predict.jobs[rank.number], partial(self._take_calls, predict, rank))

    def evict(self, job: Job) -> Eviction:
        """See `Engine`. Where the ranks are is worth knowing, and they begin anew with the worker."""
        if self._predict is not None:
            stuck = Failed("the ranks did not stop") if job.overran else Canceled()
            self._fail(self._predict, replace(stuck, exit_code=STUCK_EXIT_CODE))
        return Eviction.UNDER_WAY

    def stop(self, on_stopped: Reply) -> None:
        """See `Engine`."""
        faults: dict[int, Fault | None] = {}

        def take(rank: _Rank, fault: Fault | None) -> None:
            faults[rank.number] = fault and _named(rank, fault)
            if len(faults) == len(self._ranks):
                on_stopped(next((fault for _, fault in sorted(faults.items()) if fault), None))

        for rank in self._ranks:
            rank.process.stop(partial(take, rank))

    async def close(self) -> None:
        """See `Engine`."""
        if self._failing is not None:
            self._failing.cancel()
        await asyncio.gather(*(rank.process.close() for rank in self._ranks))
        self._port.close()
        self._scratch.close()

    def _rank(self, number: int, count: int, model: Model, command: list[str]) -> _Rank:
        stacks = self._directory / f"stacks-{number}"
        environ = rank_environment(os.environ, number, count, self._port.getsockname()[1], stacks)
        return _Rank(number, ModelProcess(model, command, environ, name=f"rank {number}"), stacks)

    def _take_ready(self, rank: _Rank, fault: Fault | None) -> None:
        """The first that cannot be set up decides; the others may wait for it in vain."""
        self._not_ready -= 1
        if self._on_ready is not None and (fault is not None or not self._not_ready):
            on_ready, self._on_ready = self._on_ready, None
            on_ready(fault and _named(rank, fault))

    def _take_calls(self, predict: _Predict, rank: _Rank, calls: int) -> None:
        predict.calls[rank.number] = calls
        self._settle_cancel(predict)

    def _settle_cancel(self, predict: _Predict) -> None:
        """Once each rank has said how far it is, or has ended, tell those that go on where to stop."""
        if predict.calls and len({*predict.calls, *predict.outcomes}) == len(self._ranks):
            first = first_cancelled(list(predict.calls.values()))
            for rank in self._ranks:
                rank.process.settle(predict.jobs[rank.number], first)

    def _take_outcome(self, predict: _Predict, rank: _Rank, outcome: Outcome) -> None:
        if predict is not self._predict or rank.process.end is not None:  # `_take_end` follows.
            return
        predict.outcomes[rank.number] = outcome
        decided = verdict(predict.outcomes, len(self._ranks))
        if decided is not None:
            self._finish(predict, decided)
        elif predict.patience is None and lags(predict.outcomes):
            loop = asyncio.get_running_loop()
            predict.patience = loop.call_later(self._patience_seconds, self._lose_patience, predict)
        if predict.cancelling:
            self._settle_cancel(predict)

    def _take_end(self, rank: _Rank, code: int) -> None:
        """A rank has ended by itself."""
        if self._predict is not None:
            self._fail(self._predict, Failed(f"rank {rank.number} {rank.process.end}", exit_code=code or EXIT_SILENT))
        elif self._failing is None and self._on_exit is not None:
            self._on_exit(code)

    def _lose_patience(self, predict: _Predict) -> None:
        error = silence(predict.outcomes, len(self._ranks), self._patience_seconds)
        self._fail(predict, Failed(error, exit_code=EXIT_SILENT))

    def _fail(self, predict: _Predict, outcome: Failed | Canceled) -> None:
        if self._failing is None:
            self._predict = None
            self._failing = asyncio.ensure_future(self._fail_with_stacks(predict, outcome))

    async def _fail_with_stacks(self, predict: _Predict, outcome: Failed | Canceled) -> None:
        """End the job, and all ranks: what they wait for from one another cannot be known any more."""
        texts = await asyncio.gather(*(self._stacks_of(rank, predict) for rank in self._ranks))
        for rank, text in zip(self._ranks, texts, strict=True):
            log.error("rank %d: %s", rank.number, text, extra=predict.jobs[0].tag)
            rank.process.kill()
        stacks = {f"rank {rank.number}": text for rank, text in zip(self._ranks, texts, strict=True)}
        self._finish(predict, replace(outcome, stacks=stacks))

    async def _stacks_of(self, rank: _Rank, predict: _Predict) -> str:
        """Say what a rank is at, or how it ended."""
        limit_chars = STACKS_LIMIT_CHARS // len(self._ranks)
        outcome = predict.outcomes.get(rank.number)
        if isinstance(outcome, Failed):
            return (outcome.traceback or outcome.error)[-limit_chars:]
        if outcome is not None:
            return "its predict has ended"
        stacks = stacks_worth_reading(await stacks_of(rank.process.pid, rank.stacks), limit_chars)
        end = rank.process.end
        return stacks or ("gave no stack" if end is None else f"{end}, without a stack")

    def _finish(self, predict: _Predict, outcome: Outcome) -> None:
        self._predict = None
        if predict.patience is not None:
            predict.patience.cancel()
        predict.on_outcome(outcome)


def _named(rank: _Rank, fault: Fault) -> Fault:
    name = f"rank {rank.number}"
    return fault if fault.text.startswith(name) else Fault(f"{name}: {fault.text}", fault.exit_code)
