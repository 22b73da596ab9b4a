"""The queue's loop: claim a job, work on it, report, claim the next."""

from __future__ import annotations

import asyncio
import time

from .attempt import Attempt, Heartbeat
from .backoff import Backoff
from .errors import PlatformAwayError, PlatformError, PlatformRefusedError
from .job import Job
from .logs import log
from .metrics import Metrics
from .outcome import Exited, Failed, Outcome
from .platform import Claim, Platform
from .workbench import Workbench

AWAY_BACKOFF = Backoff(first_seconds=0.1, longest_seconds=5.0)
REFUSED_BACKOFF = Backoff(first_seconds=1.0, longest_seconds=30.0)
"""A wrong key or name does not mend itself in a second."""

EMPTY_ANSWER_SECONDS = 0.05
"""An empty answer that came at once is no long poll: don't ask in a tight loop."""

HAND_BACK_SECONDS = 2.0


class Consumer:
    """Works on one deployment's queue until it is told to drain."""

    def __init__(self, platform: Platform, workbench: Workbench, metrics: Metrics) -> None:
        self._platform = platform
        self._workbench = workbench
        self._metrics = metrics
        self._attempt: Attempt | None = None
        self._draining = False
        self._idle_since = time.monotonic()
        self._waiting = False
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin; the task ends after `drain`, or with a predict that ends the process."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self._task

    def drain(self) -> None:
        """Claim no more; what is being worked on goes on to its end."""
        self._draining = True
        if self._waiting and self._task is not None and not self._platform.claim_arriving:
            self._task.cancel()

    async def finished(self) -> None:
        """Wait until the loop has ended."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def release(self, within_seconds: float) -> None:
        """Hand the job in hand back to the queue."""
        attempt = self._attempt
        if attempt is None:
            return
        try:
            await asyncio.wait_for(attempt.release(), within_seconds)
            self._metrics.jobs["released"] += 1
            log.warning("released: this worker is about to end", extra=attempt.job.tag)
        except (PlatformError, asyncio.TimeoutError) as error:
            log.error("could not be released, the claim will run out: %s", error, extra=attempt.job.tag)

    async def _run(self) -> None:
        while not self._draining and not self._workbench.exited.done():
            try:
                await self._sleep(await self.run_once())
            except asyncio.CancelledError:  # noqa: PERF203 - the loop outlives its rounds
                if not self._draining:
                    raise
            except Exception:  # noqa: BLE001 - a worker whose loop is dead looks healthy and does nothing
                log.exception("the queue's loop failed, and goes on")
                await self._sleep(AWAY_BACKOFF.longest_seconds)

    async def run_once(self) -> float:
        """Claim and work on one job, if there is one; give the seconds to wait before the next round."""
        asked_at = time.monotonic()
        try:
            attempt = await self._claim()
        except PlatformAwayError as error:
            return self._failed(AWAY_BACKOFF, error)
        except PlatformRefusedError as error:
            return self._failed(REFUSED_BACKOFF, error)
        if self._failures:
            log.info("the platform is back after %d failed polls", self._failures)
            self._failures = 0
        if attempt is None:
            return 0.0 if time.monotonic() - asked_at > EMPTY_ANSWER_SECONDS else EMPTY_ANSWER_SECONDS
        try:
            if self._draining and not self._workbench.has_begun(attempt.job):
                await self.release(HAND_BACK_SECONDS)  # It arrived in the moment in which the drain began.
            else:
                await self._serve(attempt)
        finally:
            self._attempt = None
        self._idle_since = time.monotonic()
        return 0.0

    async def _claim(self) -> Attempt | None:
        self._waiting = True
        try:
            return await self._platform.claim(time.monotonic() - self._idle_since, self._take_up)
        finally:
            self._waiting = False

    def _take_up(self, claim: Claim) -> Attempt:
        """Make an attempt of a claim, and have the model begin with it before anything else is done."""
        workable = isinstance(claim.payload, dict)
        job = Job(claim.request_id, claim.payload if workable else {}, priority=claim.priority, info=claim.info)
        if workable and not self._draining:
            self._workbench.begin(job)
        self._attempt = attempt = Attempt(self._platform, claim, job)
        return attempt

    async def _serve(self, attempt: Attempt) -> None:
        job = attempt.job
        heartbeat = Heartbeat(attempt, self._platform.config.heartbeat_seconds)
        heartbeat.start()
        started_at = time.monotonic()
        try:
            outcome = await self._outcome_of(attempt)
            if not isinstance(outcome, Exited):
                # An exiting worker reports nothing: the platform sees it go, and gives the job out anew as a retry.
                result = type(outcome).__name__.lower() if await attempt.finish(outcome) else "dropped"
                self._metrics.jobs[result] += 1
                seconds = time.monotonic() - started_at
                log.info("%s after %.3f s (attempt %d)", result, seconds, attempt.claim.attempt, extra=job.tag)
        finally:
            await heartbeat.stop()

    async def _outcome_of(self, attempt: Attempt) -> Outcome:
        payload = attempt.claim.payload
        if payload is not None and not isinstance(payload, dict):
            return Failed(f"the payload is not an object but {type(payload).__name__}")
        return await self._workbench.work(attempt.job)

    def _failed(self, backoff: Backoff, error: PlatformError) -> float:
        self._failures += 1
        self._metrics.claim_errors += 1
        pause_seconds = backoff.pause_seconds(self._failures)
        if self._failures == 1 or pause_seconds > backoff.longest_seconds / 2:
            log.warning("no job could be claimed, trying on: %s", error)
        return pause_seconds

    async def _sleep(self, seconds: float) -> None:
        if seconds <= 0 or self._draining:
            return
        self._waiting = True
        try:
            await asyncio.sleep(seconds)
        finally:
            self._waiting = False
