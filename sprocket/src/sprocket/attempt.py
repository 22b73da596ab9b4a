"""One claim of a job by this worker: renewed while it is held, then finished, or released.

Updates of one attempt go out one after the other, so a late heartbeat can never overtake the result.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from .backoff import Backoff
from .errors import PlatformAwayError, PlatformError, PlatformRefusedError, StaleAttemptError
from .job import Job
from .logs import log
from .outcome import Canceled, Done, Failed, Reportable
from .outputs import join
from .platform import Claim, Platform

INFO_BATCH_SECONDS = 0.1
"""What is emitted within this time travels in one heartbeat."""

DELIVERY_SECONDS = 600.0
"""For how long a result is offered to a platform that does not answer; the job runs again after that."""

DELIVERY_BACKOFF = Backoff(first_seconds=0.05, longest_seconds=5.0)


class Attempt:
    """A claimed job and what this worker tells the platform about it."""

    def __init__(self, platform: Platform, claim: Claim, job: Job) -> None:
        self.claim = claim
        self.job = job
        self.dropped = False
        """The job is no longer ours: whatever comes of it is thrown away."""
        self._platform = platform
        self._in_turn = asyncio.Lock()

    async def renew(self) -> None:
        """Send a heartbeat, with the info that waits; see from the answer whether to cancel.

        Raises:
            PlatformError: it did not get through; the info is kept for the next time.
        """
        async with self._in_turn:
            if self.dropped:
                return
            news = self.job.take_news()
            age = round(self.job.progress_age_seconds(), 3)
            try:
                cancel_requested = await self._update("running", news, progress_age_seconds=json.dumps(age))
            except (PlatformAwayError, asyncio.CancelledError):
                self.job.put_back_news(news)
                raise
        if cancel_requested:
            self.job.cancel()

    async def finish(self, outcome: Reportable) -> bool:
        """Report how the job ended; try until the platform answers, for up to 10 minutes.

        Returns:
            Whether the platform has taken it.
        """
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

    async def release(self) -> None:
        """Hand the job back unfinished; no retry is counted for it.

        Raises:
            PlatformError: it did not get through; the claim runs out by itself.
        """
        async with self._in_turn:
            if not self.dropped:
                self.dropped = True
                await self._update("pending", self.job.take_news())

    def drop(self, reason: PlatformError) -> None:
        """Take note that the job is no longer ours, and tell the model to stop."""
        if not self.dropped:
            log.warning("dropped, this attempt is over: %s", reason, extra=self.job.tag)
        self.dropped = True
        self.job.cancel()

    async def _report(self, outcome: Reportable) -> bool:
        status, info, fields = _update_for(outcome)
        async with self._in_turn:
            if self.dropped:
                return False
            news = self.job.take_news()
            try:
                await self._update(status, {**news, **info}, **fields)
            except PlatformError:
                self.job.put_back_news(news)
                raise
        return True

    async def _update(self, status: str, info: dict[str, Any], **fields: str) -> bool:
        if info:
            fields["info"] = json.dumps(info)
        return await self._platform.update(self.job.id, self.claim.attempt_token, status, **fields)


class Heartbeat:
    """Renews an attempt in the background; a timer rather than a task, since most jobs end before the first beat."""

    def __init__(self, attempt: Attempt, interval_seconds: float) -> None:
        self._attempt = attempt
        self._interval_seconds = interval_seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None
        self._stopped = False
        self._failures = 0

    def start(self) -> None:
        """Begin, in the event loop's next turn, so that a job is on its way to the model before that.

        From then on emitted info is sent soon as well.
        """
        self._loop.call_soon(self._start)

    async def stop(self) -> None:
        """End; a beat on its way is given up."""
        self._stopped = True
        self._attempt.job.on_info = None
        if self._timer is not None:
            self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.wait([self._beat])

    def _start(self) -> None:
        if self._stopped:
            return
        self._schedule(self._interval_seconds)
        self._attempt.job.on_info = self._hurry_from_any_thread
        if self._attempt.job.has_news:
            self._hurry()

    def _schedule(self, delay_seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_seconds, self._fire)

    def _hurry_from_any_thread(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hurry)

    def _hurry(self) -> None:
        if self._stopped or self._timer is None:
            return
        if self._timer.when() > self._loop.time() + INFO_BATCH_SECONDS:
            self._schedule(INFO_BATCH_SECONDS)

    def _fire(self) -> None:
        self._timer = None
        self._beat = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        delay_seconds = self._interval_seconds
        try:
            await self._attempt.renew()
            self._failures = 0
            if self._attempt.job.has_news:
                delay_seconds = INFO_BATCH_SECONDS
        except StaleAttemptError as error:
            self._attempt.drop(error)
        except PlatformError as error:
            self._failures += 1
            if self._failures == 1:
                log.warning("heartbeat failed, trying on: %s", error, extra=self._attempt.job.tag)
        self._beat = None
        if not self._stopped and not self._attempt.dropped:
            self._schedule(delay_seconds)


def _update_for(outcome: Reportable) -> tuple[str, dict[str, Any], dict[str, str]]:
    if isinstance(outcome, Done):
        texts = {name: text for name, text in outcome.outputs.items() if isinstance(text, str)}
        return "done", {}, {"payload": join(texts)}
    if isinstance(outcome, Canceled):
        return "canceled", {}, {}
    info = {"error": outcome.error}
    if outcome.traceback:
        info["traceback"] = outcome.traceback
    return "failed", info, {}
