"""The queue's loop: claim jobs, work on them, report, claim the next.

Jobs come in on two ways, one at a time. While there is room for more, a poll waits for jobs at the platform. When a job
has ended, its result goes out with the courier, which brings the next job along if no poll is waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from .attempt import DELIVERY_SECONDS, Attempt
from .backoff import Backoff
from .courier import BATCH_LIMIT, Courier
from .errors import PlatformAwayError, PlatformError, PlatformRefusedError, StaleAttemptError
from .heartbeat import Heartbeats
from .job import Job
from .journal import Journal
from .logs import log
from .messages import Claim
from .metrics import Metrics
from .outcome import Exited, Failed, HandedBack, Outcome, Stale
from .pace import PATIENCE_SECONDS
from .platform import Platform
from .timeouts import timeout
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
        self._loop = asyncio.get_running_loop()
        self._courier = Courier(platform, self)
        self._heartbeats = Heartbeats(platform.config.heartbeat_seconds)
        self._journal = Journal()
        self._attempts: dict[Attempt, asyncio.Task[None]] = {}
        self._draining = False
        self._idle_since = time.monotonic()
        self._polling = False
        self._waiting = False
        self._hung_up = False
        self._failures = 0
        self._room_made: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        workbench.on_replacing = self._hang_up

    def start(self) -> asyncio.Task[None]:
        """Begin; the task ends after `drain`, or with a predict that ends the process."""
        self._task = self._loop.create_task(self._run())
        return self._task

    def drain(self) -> None:
        """Claim no more; what is being worked on goes on to its end."""
        self._draining = True
        # Two turns of the event loop later what has arrived by now has been read: a claim may be among it.
        self._loop.call_soon(self._loop.call_soon, self._hang_up)

    async def finished(self) -> None:
        """Wait until nothing more is claimed, and all that was claimed has been reported."""
        if self._task is not None:
            await asyncio.wait([self._task])
        while waits := [*self._attempts.values(), *self._courier.under_way()]:
            await asyncio.wait(waits)
        self._journal.sum_up()

    async def release(self, within_seconds: float) -> None:
        """Hand the jobs in hand back to the queue, and see the results out; to be called after `drain`."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=within_seconds)  # Its poll might be given these very jobs.
        held = [attempt for attempt in self._attempts if not attempt.dropped and not attempt.job.over]
        reporting = [task for attempt, task in self._attempts.items() if attempt.job.over]
        await asyncio.gather(
            *(self._release(attempt, within_seconds) for attempt in held),
            *([asyncio.wait(reporting, timeout=within_seconds)] if reporting else []),
        )
        self._journal.sum_up()

    def room_beside(self, ending: int) -> int:
        """See `Desk`."""
        if self._polling or self._ending or not self._workbench.ready:
            return 0
        return self._room() + ending + self._workbench.pace.ahead

    def take_up(self, claims: list[Claim]) -> None:
        """See `Desk`. The model begins with the jobs before anything else is done."""
        jobs = [self._begun(claim) for claim in claims]
        if not self._attempts:
            self._workbench.let_begin()
        # Those that are being reported have left their slots: whose room they make waits for it as long as it takes.
        staying = sum(not attempt.is_leaving for attempt in self._attempts)
        for number, (claim, job) in enumerate(zip(claims, jobs, strict=True), staying):
            attempt = Attempt(self._courier, claim, job)
            attempt.is_ahead = number >= self._workbench.slots.count
            self._attempts[attempt] = self._loop.create_task(self._serve(attempt))

    def claimed(self) -> None:
        """See `Desk`."""
        if self._room_made is not None and not self._room_made.done() and self._may_poll():
            self._room_made.set_result(None)

    @property
    def _ending(self) -> bool:
        return self._draining or self._workbench.ending

    def _room(self) -> int:
        return self._workbench.slots.count - len(self._attempts) - self._courier.arrived

    def _hang_up(self) -> None:
        if self._waiting and self._task is not None and not self._platform.claim_arriving:
            self._hung_up = True
            self._task.cancel()

    def _may_poll(self) -> bool:
        return self._ending or (self._room() > 0 and not self._courier.claiming)

    async def _run(self) -> None:
        while not self._ending:
            try:
                await self._sleep(await self.run_once())
            except asyncio.CancelledError:  # noqa: PERF203 - the loop outlives its rounds
                if not self._hung_up:
                    raise
                self._hung_up = False
            except Exception:  # noqa: BLE001 - a worker whose loop is dead looks healthy and does nothing
                log.exception("the queue's loop failed, and goes on")
                await self._sleep(AWAY_BACKOFF.longest_seconds)

    async def run_once(self) -> float:
        """Wait for room, then for jobs; give the seconds to wait before the next round."""
        await self._wait_for_room()
        with self._as_waiting():
            await self._workbench.until_ready()
        if self._ending:
            return 0.0
        asked_at = time.monotonic()
        try:
            claimed = await self._poll(asked_at)
        except PlatformAwayError as error:
            return self._failed(AWAY_BACKOFF, error)
        except PlatformRefusedError as error:
            return self._failed(REFUSED_BACKOFF, error)
        if self._failures:
            log.info("the platform is back after %d failed polls", self._failures)
            self._failures = 0
        return 0.0 if claimed or time.monotonic() - asked_at > EMPTY_ANSWER_SECONDS else EMPTY_ANSWER_SECONDS

    async def _wait_for_room(self) -> None:
        while not self._may_poll():
            self._room_made = self._loop.create_future()
            with self._as_waiting():
                await self._room_made

    async def _poll(self, now: float) -> int:
        self._polling = True
        idle_seconds = 0.0 if self._attempts else now - self._idle_since
        try:
            with self._as_waiting():
                return await self._platform.claim(min(self._room(), BATCH_LIMIT), idle_seconds, self.take_up)
        finally:
            self._polling = False

    def _begun(self, claim: Claim) -> Job:
        """Make a job of a claim, with which the model has begun, where it can."""
        workable = isinstance(claim.payload, dict)
        job = Job(
            claim.request_id,
            claim.payload if workable else {},
            priority=claim.priority,
            info=claim.info,
            queued=True,
            attempt_token=claim.attempt_token,
        )
        if workable and not self._draining:
            self._workbench.begin(job)
        return job

    async def _serve(self, attempt: Attempt) -> None:
        """See an attempt from its claim to its report."""
        try:
            if self._draining and not self._workbench.has_begun(attempt.job):
                await self._release(attempt, HAND_BACK_SECONDS)  # It arrived in the moment in which the drain began.
                return
            self._heartbeats.begin(attempt)
            try:
                await self._work_on(attempt)
            finally:
                await self._heartbeats.end(attempt)
        except Exception:  # noqa: BLE001 - a mistake of ours costs this attempt, not the worker
            log.exception("the attempt is given up", extra=attempt.job.tag)
        finally:
            del self._attempts[attempt]
            self._idle_since = time.monotonic()
            self.claimed()

    async def _work_on(self, attempt: Attempt) -> None:
        started_at = time.monotonic()
        outcome = await self._outcome_of(attempt)
        if isinstance(outcome, Exited):
            # An exiting worker reports nothing: the platform sees it go, and gives the job out anew as a retry.
            attempt.dropped = True
            return
        if isinstance(outcome, HandedBack):
            # A worker that goes on has the time to see it back.
            await self._release(attempt, HAND_BACK_SECONDS if self._ending else DELIVERY_SECONDS)
            return
        if isinstance(outcome, Stale):
            attempt.drop(StaleAttemptError(outcome.error))
        taken = not isinstance(outcome, Stale) and await attempt.finish(outcome)
        self._workbench.told(outcome)
        result = type(outcome).__name__.lower() if taken else "dropped"
        self._metrics.jobs[result] += 1
        self._journal.note(attempt.job, result, time.monotonic() - started_at, attempt.claim.attempt)

    async def _outcome_of(self, attempt: Attempt) -> Outcome:
        payload = attempt.claim.payload
        if payload is not None and not isinstance(payload, dict):
            return Failed(f"the payload is not an object but {type(payload).__name__}")
        return await self._workbench.work(attempt.job, PATIENCE_SECONDS if attempt.is_ahead else None)

    async def _release(self, attempt: Attempt, within_seconds: float) -> None:
        try:
            async with timeout(within_seconds):
                released = await attempt.release(lambda: not self._ending)
            if released:
                self._metrics.jobs["released"] += 1
                log.warning("released: another worker may have it", extra=attempt.job.tag)
        except (PlatformError, asyncio.TimeoutError) as error:
            log.error("could not be released, the claim will run out: %s", error, extra=attempt.job.tag)

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
        with self._as_waiting():
            await asyncio.sleep(seconds)

    @contextlib.contextmanager
    def _as_waiting(self) -> Iterator[None]:
        """For the time of the block, let a drain interrupt."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False
