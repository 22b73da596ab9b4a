"""Hands jobs to workers: at once where there are some, else as soon as one comes.

A worker that finds the queue empty waits here. A submit takes the longest waiting worker along into its own
transaction, which stores the job and claims it at once: one commit for both. On SQLite the worker is answered before
it, and the submitter once it is on disk.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from machineshop.errors import NotFound, StaleAttempt, StoreUnavailable
from machineshop.models import Claim, Job, Worker
from machineshop.services.changes import Changes
from machineshop.services.intake import BRIEF_JOBS, Intake
from machineshop.services.waiters import Answer, Handed, Waiter, Waiters
from machineshop.states import JobVerb
from machineshop.store import claims, turns
from machineshop.store.claims import Wanted
from machineshop.store.database import Database
from machineshop.store.moves import Holder
from machineshop.store.turns import Update

# A claim that its worker never renews, of a worker that is no replica of ours: nobody else could tell that it is gone.
UNRENEWED_CLAIM_SECONDS = 24 * 3600
# The same, of a replica: it is freed when the replica ends, so this bound only has to exist.
REPLICA_CLAIM_SECONDS = 365 * 24 * 3600
TOKEN_BYTES = 16
# So soon a worker looks again that met too many late jobs; meanwhile the control loop fails others of them.
LATE_PAUSE_SECONDS = 0.5
TAKE_BACK_PAUSES_SECONDS = (0.1, 0.5, 2.0, 5.0, 10.0, 30.0)

log = logging.getLogger(__name__)


class Dispatcher:
    """Brings jobs and workers together."""

    def __init__(self, database: Database, changes: Changes, clock: Callable[[], float]) -> None:
        self._database = database
        self._changes = changes
        self._clock = clock
        self.waiters = Waiters()
        self._leaving: set[str] = set()
        self.on_pending: list[Callable[[str], None]] = []
        self._intake = Intake(database)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def close(self) -> None:
        """Send the workers that wait home with nothing; from now on none waits."""
        self._closing = True
        self.waiters.send_all_home()

    def leave(self, replica_id: str) -> None:
        """A replica is about to be asked to end: it is handed no job any more."""
        self._leaving.add(replica_id)
        self.waiters.send_home(replica_id)

    def gone(self, replica_id: str) -> None:
        """A replica's run has ended; its next one is handed jobs again."""
        self._leaving.discard(replica_id)

    def is_leaving(self, worker: Worker) -> bool:
        """Whether a worker is about to be asked to end."""
        return worker.replica_id in self._leaving

    def wanted(self, worker: Worker, max_jobs: int) -> Wanted:
        """A claim of a worker, now."""
        now = self._clock()
        mark = mark_of(worker)
        return Wanted(
            worker=worker,
            token=mark + os.urandom(TOKEN_BYTES).hex(),
            now=now,
            expires_at=claim_expires_at(worker, now),
            max_jobs=max_jobs,
            again=mark if worker.asks_again else None,
        )

    async def retrieve(
        self,
        deployment_id: str,
        worker: Worker,
        max_jobs: int,
        timeout_seconds: float,
        disconnected: Callable[[], Awaitable[None]],
        answer: Answer | None = None,
    ) -> list[Claim]:
        """The next jobs for a worker, which waits for one up to `timeout_seconds`; none when none came.

        `disconnected` returns once the worker has closed its connection: it is handed no job then. One that waited is
        answered by `answer`, where there is one and it can, before this returns.
        """
        hung_up = asyncio.ensure_future(disconnected())
        try:
            handed = await self._claim_or_wait(deployment_id, worker, max_jobs, timeout_seconds, hung_up, answer)
            if not handed.claims or handed.answered or not hung_up.done():
                return handed.claims
            self._spawn(self._take_back(handed.claims))
            return []
        finally:
            hung_up.cancel()

    async def submit_one(self, job: Job) -> Job:
        """Store a job; where a worker waits, it gets the queue's next job in the same transaction."""
        waiter = self.waiters.next(job.deployment_id)
        if waiter is not None:
            return await self._submit_to(waiter, job)
        stored = await self._intake.insert(job)
        if stored is job:
            self.wake(job.deployment_id)
        return stored

    def wake(self, deployment_id: str, jobs_pending: int = 1) -> None:
        """Jobs of this deployment have become pending: have the longest waiting workers claim them."""
        self.tell_pending(deployment_id)
        self.waiters.arrived(deployment_id)
        for _ in range(jobs_pending):
            waiter = self.waiters.next(deployment_id)
            if waiter is None:
                return
            self._spawn(self._serve(deployment_id, waiter))

    def tell_pending(self, deployment_id: str) -> None:
        """Jobs of this deployment may wait: whoever starts workers is to know at once."""
        for listener in self.on_pending:
            listener(deployment_id)

    def claimed(self, deployment_id: str, handed: list[Claim]) -> None:
        """Tell followers of jobs that have just begun."""
        if handed:
            self._changes.tell(deployment_id, [claim.job.id for claim in handed])

    async def _claim_or_wait(
        self,
        deployment_id: str,
        worker: Worker,
        max_jobs: int,
        timeout_seconds: float,
        hung_up: "asyncio.Future[None]",
        answer: Answer | None,
    ) -> Handed:
        if self.is_leaving(worker):  # an answer at once would be asked for again at once
            await asyncio.wait([hung_up], timeout=timeout_seconds)
            return Handed([], answered=False)
        while True:
            arrivals = self.waiters.arrivals(deployment_id)
            claims = await self._claim(deployment_id, worker, max_jobs)
            if claims:
                return Handed(claims, answered=False)
            if arrivals == self.waiters.arrivals(deployment_id):
                break
        if timeout_seconds <= 0 or self._closing or hung_up.done():
            return Handed([], answered=False)
        waiter = Waiter(worker, max_jobs, answer)
        self.waiters.add(deployment_id, waiter)
        hung_up.add_done_callback(waiter.send_home)
        timer = asyncio.get_running_loop().call_later(timeout_seconds, waiter.send_home)
        handed = None
        try:
            handed = await waiter.handed
        finally:
            timer.cancel()
            if handed is None or not handed.claims:  # it may still stand in the line
                waiter.send_home()
                self.waiters.forget(deployment_id, waiter)
        return handed

    async def _claim(self, deployment_id: str, worker: Worker, max_jobs: int) -> list[Claim]:
        wanted = self.wanted(worker, max_jobs)
        write = self._database.write_briefly if max_jobs <= BRIEF_JOBS else self._database.write_in_queue
        handed, ended_early = await write(deployment_id, claims.look, deployment_id, wanted)
        self.claimed(deployment_id, handed)
        if ended_early:  # nobody else may notice that a job is left behind those that were late
            asyncio.get_running_loop().call_later(LATE_PAUSE_SECONDS, self.wake, deployment_id)
        return handed

    async def _submit_to(self, waiter: Waiter, job: Job) -> Job:
        """Store a job and claim for a waiting worker in one transaction."""
        deployment_id = job.deployment_id
        arrivals = self.waiters.arrivals(deployment_id)
        try:
            stored, handed = await self._database.write_handing_over(
                deployment_id,
                lambda result: self._hand_over(waiter, result[1]),
                claims.submit_and_claim,
                job,
                self.wanted(waiter.worker, waiter.max_jobs),
            )
        except BaseException:
            self._return(waiter, deployment_id, arrivals)
            raise
        self.claimed(deployment_id, handed)
        if not handed:
            self._return(waiter, deployment_id, arrivals)
        if stored is job and all(claim.job.id != job.id for claim in handed):
            self.wake(deployment_id)  # an older or more urgent job went first, or its key is at its cap: it still waits
        return stored

    async def _serve(self, deployment_id: str, waiter: Waiter) -> None:
        """Claim for a waiting worker, as long as jobs keep arriving and others are quicker."""
        arrivals = self.waiters.arrivals(deployment_id)
        try:
            handed = await self._claim(deployment_id, waiter.worker, waiter.max_jobs)
        except StoreUnavailable as error:  # once it is back, those who wait are looked at again
            log.warning("claim.failed deployment_id=%s error=%s", deployment_id, error)
            self._return(waiter, deployment_id, arrivals)
            return
        except Exception:
            self._return(waiter, deployment_id, arrivals)
            raise
        if handed:
            self._hand_over(waiter, handed)
        else:
            self._return(waiter, deployment_id, arrivals)

    def _return(self, waiter: Waiter, deployment_id: str, arrivals: int) -> None:
        """Put a worker that got nothing back to the head of the line, unless a job arrived while it was away."""
        if waiter.gone:
            return
        if arrivals != self.waiters.arrivals(deployment_id):
            self._spawn(self._serve(deployment_id, waiter))
        else:
            self.waiters.put_back(deployment_id, waiter)

    def _hand_over(self, waiter: Waiter, handed: list[Claim]) -> None:
        """Give a worker its claims, and free those that it cannot be given.

        A transaction that failed and was done again has them once more: the same job with the same token, as a rule.
        """
        if not waiter.gone:
            if handed:
                waiter.hand(handed)
            return
        given = [(claim.job.id, claim.token) for claim in waiter.claims]
        lost = [claim for claim in handed if (claim.job.id, claim.token) not in given]
        if lost:
            self._spawn(self._take_back(lost))

    async def _take_back(self, handed: list[Claim]) -> None:
        """Free claims whose worker hung up before it got them; a store that is away for a moment is waited for."""
        for claim in handed:
            await self._take_one_back(claim)

    async def _take_one_back(self, claim: Claim) -> None:
        job = claim.job
        for pause_seconds in TAKE_BACK_PAUSES_SECONDS:
            try:
                release = Update(verb=JobVerb.RELEASE, job_id=job.id, token=claim.token)
                _, opens = await self._database.write_in_queue(
                    job.deployment_id, turns.update, job.project_id, Holder(), release, self._clock()
                )
            except StoreUnavailable:
                await asyncio.sleep(pause_seconds)
            except (NotFound, StaleAttempt):
                return
            else:
                if opens:
                    self.wake(job.deployment_id)
                self._changes.tell(job.deployment_id, [job.id])
                return
        log.error("claim.not_taken_back job=%s", job.id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@lru_cache(4096)  # made when a worker asks, and again when its job comes in
def mark_of(worker: Worker) -> str:
    """What the tokens of one request for jobs begin with, however often the worker makes it.

    The rest of a token is its own: what belongs to an answer that was lost, such as taking the jobs back since the
    worker has hung up, does nothing to those that a later one was given.
    """
    if worker.turn_id is None:
        return ""
    turn = f"{worker.replica_id or ''} {worker.hostname} {worker.turn_id}".encode()
    return blake2b(turn, digest_size=TOKEN_BYTES).hexdigest()


def claim_expires_at(worker: Worker, now: float) -> float:
    """Until when a new claim holds without a renewal."""
    if worker.claim_timeout_seconds is not None:
        return now + worker.claim_timeout_seconds
    return now + (UNRENEWED_CLAIM_SECONDS if worker.replica_id is None else REPLICA_CLAIM_SECONDS)
