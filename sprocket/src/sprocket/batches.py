"""Dynamic batching: jobs that are in hand at the same time are predicted together.

It lives on the model's event loop, also where `predict_batch` is a plain `def`: while that runs, nothing else of the
model does, and the jobs that come meanwhile form the next batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from .errors import OutputError
from .job import Job, active

PredictBatch = Callable[[list[Any]], Any]


class _Place(NamedTuple):
    """A job that waits for its batch, or for what becomes of it there."""

    job: Job
    item: Any
    result: asyncio.Future[Any]


class Batches:
    """Forms the batches of one model, one after the other.

    Args:
        size: how many jobs one has at most.
        wait_seconds: how long the first of them waits for others.
        predict: predicts a list of inputs; its result may have to be awaited.
    """

    def __init__(self, size: int, wait_seconds: float, predict: PredictBatch) -> None:
        self._size = size
        self._wait_seconds = wait_seconds
        self._predict = predict
        self._waiting: list[_Place] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None

    async def predict(self, job: Job, item: Any) -> Any:
        """Predict one job together with others, and give its own result.

        Raises:
            OutputError: the batch did not get as many results as it has jobs.
            asyncio.CancelledError: the job is cancelled; the others go on.
            Exception: what the batch raised, or has as this job's result.
        """
        place = _Place(job, item, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        self._arrange()
        return await place.result

    def _arrange(self) -> None:
        if self._running is not None or not self._waiting:
            return
        if len(self._waiting) >= self._size:
            self._begin()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait_seconds, self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for place in self._waiting:
            if place.job.cancel_requested:
                place.result.cancel()
        wanted = [place for place in self._waiting if not place.result.done()]
        batch, self._waiting = wanted[: self._size], wanted[self._size :]
        if batch:
            self._running = asyncio.get_running_loop().create_task(self._run(batch))

    async def _run(self, batch: list[_Place]) -> None:
        try:
            with active(Together([place.job for place in batch])):
                results = self._predict([place.item for place in batch])
                if asyncio.iscoroutine(results) or isinstance(results, asyncio.Future):
                    results = await results
            _share_out(batch, results)
        except BaseException as error:  # noqa: BLE001 - whatever the model raises is the outcome of all its jobs
            for place in batch:
                if not place.result.done():
                    place.result.set_exception(error)
        finally:
            self._running = None
            self._arrange()


class Together(Job):
    """The jobs of a batch, as the current one while it is predicted."""

    def __init__(self, jobs: list[Job]) -> None:
        super().__init__(jobs[0].id if len(jobs) == 1 else f"{jobs[0].id} and {len(jobs) - 1} more", {})
        self._jobs = jobs

    def add_info(self, news: dict[str, Any]) -> None:
        """Tell it of all jobs."""
        for job in self._jobs:
            job.add_info(news)

    def see_cancel(self) -> bool:
        """Say so only when nobody wants any of it."""
        return all(job.cancel_requested for job in self._jobs) and all(job.see_cancel() for job in self._jobs)


def _share_out(batch: list[_Place], results: object) -> None:
    if not isinstance(results, (list, tuple)):
        raise OutputError(f"predict_batch returned {type(results).__name__}; it must return a list, a result per input")
    if len(results) != len(batch):
        raise OutputError(f"predict_batch returned {len(results)} results for {len(batch)} inputs")
    for place, result in zip(batch, results, strict=True):
        if place.result.done():
            continue  # Cancelled meanwhile.
        if isinstance(result, BaseException):
            place.result.set_exception(result)
        else:
            place.result.set_result(result)
