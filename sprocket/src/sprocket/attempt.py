"""One claim of a job by this worker: renewed while it is held (see `heartbeat`), then finished, or released.

Updates of one attempt go out one after the other, so a late heartbeat can never overtake the result.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from .backoff import Backoff
from .courier import Courier
from .errors import PlatformAwayError, PlatformError, PlatformRefusedError, StaleAttemptError
from .job import Job
from .logs import log
from .messages import Claim, Update
from .outcome import Canceled, Done, Failed, Reportable

DELIVERY_SECONDS = 600.0
"""For how long a result is offered to a platform that does not answer; the job runs again after that."""

DELIVERY_BACKOFF = Backoff(first_seconds=0.05, longest_seconds=5.0)


class Attempt:
    """A claimed job and what this worker tells the platform about it."""

    def __init__(self, courier: Courier, claim: Claim, job: Job) -> None:
        self.claim = claim
        self.job = job
        self.dropped = False
        """The job is no longer ours: whatever comes of it is thrown away."""
        self.is_ahead = False
        """The job was claimed while others had all the slots."""
        self.is_leaving = False
        """How it ends is being told: it has no slot any more, and wants none."""
        self._courier = courier
        self._in_turn = asyncio.Lock()

    async def renew(self) -> None:
        """Send a heartbeat, with the info and the chunks that wait; see from the answer whether to cancel.

        Raises:
            PlatformError: it did not get through; what it carried is kept for the next time.
        """
        async with self._in_turn:
            if self.dropped:
                return
            news, batch = self.job.take_news(), self.job.take_chunks()
            fields = {"progress_age_seconds": json.dumps(round(self.job.progress_age_seconds(), 3))}
            if batch.texts:
                fields["payload"] = batch.encode()
            try:
                cancel_requested = await self._update("running", news, **fields)
            except (PlatformAwayError, asyncio.CancelledError):
                self.job.put_back_news(news)
                self.job.chunks.put_back(batch)
                raise
            except PlatformRefusedError as error:
                if not batch.texts:
                    raise
                log.warning("the chunks are not shown while the job runs: %s", error, extra=self.job.tag)
                self.job.chunks.refuse()
                self.job.put_back_news(news)
                return
        if cancel_requested:
            self.job.cancel()

    async def finish(self, outcome: Reportable) -> bool:
        """Report how the job ended; try until the platform answers, for up to 10 minutes.

        Returns:
            Whether the platform has taken it.
        """
        self.job.over = self.is_leaving = True
        if self.job.has_chunks:
            await self._send_last_chunks()
        gives_up_at = time.monotonic() + DELIVERY_SECONDS
        failures = 0
        while not self.dropped:
            try:
                return await self._report(outcome)
            except StaleAttemptError as error:  # noqa: PERF203 - tries again
                self.drop(error)
            except PlatformRefusedError as error:
                log.error("the platform does not take the result: %s", error, extra=self.job.tag)
                if isinstance(outcome, Failed):
                    return False
                outcome = Failed(f"the result was refused: {error}")
            except PlatformAwayError as error:
                failures += 1
                if time.monotonic() > gives_up_at:
                    log.error("the result could not be delivered, giving it up: %s", error, extra=self.job.tag)
                    return False
                if failures == 1:
                    log.warning("result not delivered yet, trying on: %s", error, extra=self.job.tag)
                await asyncio.sleep(DELIVERY_BACKOFF.pause_seconds(failures))
        return False

    async def release(self, goes_on: Callable[[], bool]) -> bool:
        """Hand the job back unfinished; no retry is counted for it.

        Args:
            goes_on: whether to try again where the platform does not answer.

        Returns:
            Whether it was still ours.

        Raises:
            PlatformError: it did not get through; the claim runs out by itself.
        """
        self.is_leaving = True
        async with self._in_turn:
            if self.dropped:
                return False
            self.dropped = True
            failures = 0
            while True:
                try:
                    await self._update("pending", self.job.take_news())
                    return True
                except PlatformAwayError:
                    if not goes_on():
                        raise
                failures += 1
                await asyncio.sleep(DELIVERY_BACKOFF.pause_seconds(failures))

    def drop(self, reason: PlatformError) -> None:
        """Take note that the job is no longer ours, and tell the model to stop."""
        if not self.dropped:
            log.warning("dropped, this attempt is over: %s", reason, extra=self.job.tag)
        self.dropped = True
        self.job.cancel()

    async def _send_last_chunks(self) -> None:
        """Let whoever follows the job see all that the model gave; once, for the outputs are what counts."""
        try:
            while self.job.has_chunks and not self.dropped:
                await self.renew()
        except PlatformError:
            self.job.chunks.refuse()

    async def _report(self, outcome: Reportable) -> bool:
        status, info, fields = _update_for(outcome)
        async with self._in_turn:
            if self.dropped:
                return False
            news = self.job.take_news()
            try:
                await self._update(status, {**news, **info, **self.job.measures.info()}, **fields)
            except PlatformError:
                self.job.put_back_news(news)
                raise
        return True

    async def _update(self, status: str, info: dict[str, Any], **fields: str) -> bool:
        if info:
            fields["info"] = json.dumps(info)
        return await self._courier.send(Update(self.job.id, self.claim.attempt_token, status, fields))


def _update_for(outcome: Reportable) -> tuple[str, dict[str, Any], dict[str, str]]:
    if isinstance(outcome, Done):
        return "done", {}, {"payload": outcome.outputs.text()}
    info: dict[str, Any] = {"stacks": dict(outcome.stacks)} if outcome.stacks else {}
    if isinstance(outcome, Canceled):
        return "canceled", info, {}
    info["error"] = outcome.error
    if outcome.traceback:
        info["traceback"] = outcome.traceback
    return "failed", info, {}
