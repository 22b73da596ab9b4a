"""What keeps claims alive: every attempt in hand is renewed in the background, and cancels are seen in the answers.

One timer serves them all. Most jobs end before their first beat, and so cost it nothing; those that are due at about
the same time are renewed with one request.
"""

from __future__ import annotations

import asyncio

from .attempt import Attempt
from .errors import PlatformError, StaleAttemptError
from .job import Job
from .logs import log

INFO_BATCH_SECONDS = 0.1
"""What is emitted within this time travels in one heartbeat."""

TOGETHER = 1 / 4
"""The part of the interval by which a beat may come early to go with another one."""


class Heartbeats:
    """Renews attempts until told that they have ended. Use inside a running event loop."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._loop = asyncio.get_running_loop()
        self._due: dict[Job, float] = {}
        """When to renew; in this order, but for those that have info to send."""
        self._attempts: dict[Job, Attempt] = {}
        self._beats: dict[Job, asyncio.Task[None]] = {}
        self._failing: set[Job] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, attempt: Attempt) -> None:
        """Renew an attempt from now on, and send the info that its job emits soon."""
        job = attempt.job
        self._attempts[job] = attempt
        job.on_info = self._hurry_from_any_thread
        self._schedule(job, self._interval_seconds)
        if job.has_news:
            self._hurry(job)

    async def end(self, attempt: Attempt) -> None:
        """Renew it no more; a beat on its way is given up."""
        job = attempt.job
        job.on_info = None
        self._attempts.pop(job, None)
        self._due.pop(job, None)
        self._failing.discard(job)
        beat = self._beats.get(job) if self._beats else None
        if beat is not None:
            beat.cancel()
            await asyncio.wait([beat])

    def _schedule(self, job: Job, delay_seconds: float) -> None:
        at = self._loop.time() + delay_seconds
        self._due.pop(job, None)
        self._due[job] = at
        if self._timer is None:
            self._timer = self._loop.call_at(at, self._fire)
        elif at < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(at, self._fire)

    def _hurry_from_any_thread(self, job: Job) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hurry, job)

    def _hurry(self, job: Job) -> None:
        # Not in `_due`: it has ended, or its beat is on its way and looks for news afterwards.
        if self._due.get(job, 0.0) > self._loop.time() + INFO_BATCH_SECONDS:
            self._schedule(job, INFO_BATCH_SECONDS)

    def _fire(self) -> None:
        self._timer = None
        soon = self._loop.time() + self._interval_seconds * TOGETHER
        for job in [job for job, at in self._due.items() if at <= soon]:
            del self._due[job]
            self._beats[job] = self._loop.create_task(self._beat(self._attempts[job]))
        if self._due:
            self._timer = self._loop.call_at(min(self._due.values()), self._fire)

    async def _beat(self, attempt: Attempt) -> None:
        job = attempt.job
        try:
            delay_seconds = await self._renew(attempt)
        finally:
            del self._beats[job]
        if job in self._attempts and not attempt.dropped:
            self._schedule(job, delay_seconds)

    async def _renew(self, attempt: Attempt) -> float:
        """Renew once; give the seconds until the next time."""
        job = attempt.job
        try:
            await attempt.renew()
        except StaleAttemptError as error:
            attempt.drop(error)
        except PlatformError as error:
            if not self._failing:  # What is wrong with one is wrong with all, as a rule.
                log.warning("heartbeat failed, trying on: %s", error, extra=job.tag)
            self._failing.add(job)
        else:
            self._failing.discard(job)
            if job.has_news:
                return INFO_BATCH_SECONDS
        return self._interval_seconds
