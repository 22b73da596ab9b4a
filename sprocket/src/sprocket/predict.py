"""One predict under way: its time limit, and for how long it may go on once it has been told to stop.

Told to stop is who asks `cancelled()`, awaits, or has registered something with `on_cancel`. What goes on all the same
would keep its place at the model for good, so it is given up; what that means is up to the engine, and to `Workbench`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from .errors import TimeLimitError
from .job import Job
from .outcome import Canceled, Failed, Outcome, Reportable, failure


@dataclass(frozen=True)
class Patience:
    """How long is waited for a predict, from its start, and from when it was told to stop."""

    time_limit_seconds: float | None
    grace_seconds: float


class Predict:
    """A job that the model has in hand. Use inside a running event loop.

    Args:
        job: the job.
        patience: how long it may take.
        interrupt: tells the model that it is to stop.
        give_up: called when it has not stopped in time; gives whether an outcome follows all the same.

    Attributes:
        outcome: how it ended, to be set by the engine.
    """

    def __init__(
        self,
        job: Job,
        patience: Patience,
        interrupt: Callable[[Job], None],
        give_up: Callable[[Predict], bool],
    ) -> None:
        self.job = job
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Outcome] = self._loop.create_future()
        self._patience = patience
        self._interrupt = interrupt
        self._give_up = give_up
        self._started_at = time.perf_counter()
        self._timer: asyncio.TimerHandle | None = None
        if patience.time_limit_seconds is not None:
            self._timer = self._loop.call_later(patience.time_limit_seconds, self._overrun)

    def seconds(self) -> float:
        """Give the time since it began."""
        return time.perf_counter() - self._started_at

    async def end(self) -> Outcome:
        """Wait until the model is done with the job, or it has been given up."""
        self.job.listen(self._stop)
        try:
            outcome = await self.outcome
        finally:
            self.job.listen(None)
        if self._timer is not None:
            self._timer.cancel()
        if self.job.overran and isinstance(outcome, Reportable):
            limit = self._patience.time_limit_seconds
            failed = failure(TimeLimitError(f"predict took longer than its time_limit_seconds, {limit:g} s"))
            return replace(outcome, error=failed.error) if isinstance(outcome, Failed) else failed
        return outcome

    def _stop(self) -> None:
        self._interrupt(self.job)
        # A client over HTTP that has hung up is no reason to end anything by force: anybody could do that.
        if self.job.queued:
            self._wait_for_stop()

    def _overrun(self) -> None:
        if not self.outcome.done():
            self.job.overran = True
            self.job.cancel()
            self._wait_for_stop()

    def _wait_for_stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._patience.grace_seconds, self._stop_waiting)

    def _stop_waiting(self) -> None:
        if not self.outcome.done() and not self._give_up(self):
            self.outcome.set_result(Canceled())
