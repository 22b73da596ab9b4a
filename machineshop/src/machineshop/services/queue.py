"""The queue: submit, claim, renew, finish and all that can happen to a job in between.

A worker that finds the queue empty waits here (`retrieve`). A submit takes the longest waiting worker along into its
own transaction, which stores the job and claims it at once: both are answered after one commit.
"""

import asyncio
import logging
import secrets
import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from sqlalchemy import Connection

from machineshop.errors import InvalidRequest, NotFound, StaleAttempt, StoreUnavailable
from machineshop.ids import new_id
from machineshop.models import ApiKey, Claim, Deployment, Job, Worker
from machineshop.services.deployments import DeploymentService
from machineshop.states import JobState
from machineshop.store import jobs
from machineshop.store.database import Database
from machineshop.store.jobs import Holder

# A claim that its worker never renews, of a worker that is no replica of ours: nobody else could tell that it is gone.
UNRENEWED_CLAIM_SECONDS = 24 * 3600
# The same, of a replica: it is freed when the replica ends, so this bound only has to exist.
REPLICA_CLAIM_SECONDS = 365 * 24 * 3600
MAX_PRIORITY = 2**31 - 1
TAKE_BACK_PAUSES_SECONDS = (0.1, 0.5, 2.0, 5.0, 10.0, 30.0)

log = logging.getLogger(__name__)


class _Waiter:
    """A worker that waits for a job of one deployment, until it is handed a claim or sent home with None."""

    __slots__ = ("handed", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.handed: asyncio.Future[Claim | None] = asyncio.get_running_loop().create_future()

    @property
    def gone(self) -> bool:
        """Whether it waits no longer."""
        return self.handed.done()

    def send_home(self, *_why: object) -> None:
        """End the wait with nothing."""
        if not self.gone:
            self.handed.set_result(None)


class QueueService:
    """The operations on jobs; each is one transition."""

    def __init__(
        self, database: Database, deployments: DeploymentService, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._deployments = deployments
        self._clock = clock
        self._waiters: defaultdict[str, deque[_Waiter]] = defaultdict(deque)
        # How often a job of a deployment became pending: tells a worker that was just about to wait to look again.
        self._arrivals: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def close(self) -> None:
        """Send the workers that wait home with nothing; from now on none waits."""
        self._closing = True
        for waiter in [waiter for line in self._waiters.values() for waiter in line]:
            waiter.send_home()

    async def submit(
        self, project_id: str, model: str, payload: msgspec.Raw, priority: int = 0, info: dict[str, Any] | None = None
    ) -> Job:
        """Store a job; it is on disk when this returns.

        Raises:
            NotFound: No such deployment.
            InvalidRequest: The payload is not an object, or the priority is out of range.
        """
        _check_object(payload, "payload")
        if abs(priority) > MAX_PRIORITY:
            raise InvalidRequest(f"'priority' must be between -{MAX_PRIORITY} and {MAX_PRIORITY}.", param="priority")
        deployment = await self._deployments.get(project_id, model)
        job = Job(
            id=new_id(),
            project_id=project_id,
            deployment_id=deployment.id,
            model=deployment.name,
            state=JobState.PENDING,
            priority=priority,
            payload=payload,
            info=info or {},
            created_at=self._clock(),
        )
        waiter = self._next_waiter(deployment.id)
        if waiter is None:
            await self._database.write(jobs.insert, job)
            self.wake(deployment.id)
            return job
        await self._submit_to(waiter, job)
        return job

    async def retrieve(
        self,
        deployment: Deployment,
        worker: Worker,
        timeout_seconds: float,
        disconnected: Callable[[], Awaitable[None]],
    ) -> Claim | None:
        """The next job for a worker, which waits for one up to `timeout_seconds`; None when there was none.

        `disconnected` returns once the worker has closed its connection: it is handed no job then.
        """
        hung_up = asyncio.ensure_future(disconnected())
        try:
            claim = await self._claim_or_wait(deployment.id, worker, timeout_seconds, hung_up)
            if claim is None or not hung_up.done():
                return claim
            self._spawn(self._take_back(claim))
            return None
        finally:
            hung_up.cancel()

    async def _claim_or_wait(
        self, deployment_id: str, worker: Worker, timeout_seconds: float, hung_up: "asyncio.Future[None]"
    ) -> Claim | None:
        while True:
            arrivals = self._arrivals[deployment_id]
            claim = await self._claim(deployment_id, worker)
            if claim is not None:
                return claim
            if arrivals == self._arrivals[deployment_id]:
                break
        if timeout_seconds <= 0 or self._closing or hung_up.done():
            return None
        waiter = _Waiter(worker)
        self._waiters[deployment_id].append(waiter)
        hung_up.add_done_callback(waiter.send_home)
        timer = asyncio.get_running_loop().call_later(timeout_seconds, waiter.send_home)
        try:
            return await waiter.handed
        finally:
            timer.cancel()
            waiter.send_home()
            self._forget(deployment_id, waiter)

    async def renew(
        self,
        project_id: str,
        job_id: str,
        holder: Holder,
        info: dict[str, Any],
        progress_age_seconds: float | None = None,
    ) -> bool:
        """Keep a claim alive, with progress in `info`; True when the user asked for a cancel.

        `progress_age_seconds` is how long ago the model last made itself heard.

        Raises:
            NotFound: No such job.
            StaleAttempt: Somebody else holds it, or it has ended.
        """
        now = self._clock()
        progress_at = None if progress_age_seconds is None else now - progress_age_seconds
        return await self._database.write(jobs.renew, project_id, job_id, holder, info, progress_at, now)

    async def finish(
        self, project_id: str, job_id: str, holder: Holder, outputs: msgspec.Raw, info: dict[str, Any]
    ) -> None:
        """Store a job's result. Raises as `renew`, and InvalidRequest where the outputs are no object."""
        _check_object(outputs, "payload")
        await self._database.write(jobs.finish, project_id, job_id, holder, outputs, info, self._clock())

    async def fail(self, project_id: str, job_id: str, holder: Holder, info: dict[str, Any]) -> None:
        """Store that the model failed the job; it is not tried again. Raises as `renew`."""
        await self._database.write(jobs.fail, project_id, job_id, holder, info, self._clock())

    async def abandon(self, project_id: str, job_id: str, holder: Holder, info: dict[str, Any]) -> None:
        """Store that the worker took up a cancel. Raises as `renew`."""
        await self._database.write(jobs.abandon, project_id, job_id, holder, info, self._clock())

    async def release(self, project_id: str, job_id: str, holder: Holder) -> None:
        """Take a job back from a worker that has to stop; it counts as no retry. Raises as `renew`."""
        self.wake(await self._database.write(jobs.release, project_id, job_id, holder, self._clock()))

    async def status(self, project_id: str, model: str, job_id: str) -> Job:
        """A job as it is now.

        Raises:
            NotFound: No such job of this deployment.
        """
        job = await self._database.read(jobs.get, project_id, model, job_id)
        if job is None:
            raise NotFound(what="job", id=job_id)
        return job

    async def cancel(self, project_id: str, model: str, job_id: str) -> Job:
        """Cancel a pending job, or ask a running one's worker to stop; returns the job as it is then.

        Raises:
            NotFound: No such job of this deployment.
        """
        return await self._database.write(jobs.cancel, project_id, model, job_id, self._clock())

    async def clear(self, project_id: str, model: str) -> int:
        """Cancel all pending jobs of a deployment; returns how many.

        Raises:
            NotFound: No such deployment.
        """
        deployment = await self._deployments.get(project_id, model)
        return await self._database.write(jobs.clear, project_id, deployment.id, self._clock())

    async def count(self, project_id: str, model: str) -> dict[JobState, int]:
        """How many jobs of a deployment wait and run.

        Raises:
            NotFound: No such deployment.
        """
        deployment = await self._deployments.get(project_id, model)
        return await self._database.read(jobs.count, project_id, deployment.id)

    async def worked_by(self, key: ApiKey, model: str) -> Deployment:
        """The deployment whose queue a caller may work: a replica's own, whatever it is called.

        Raises:
            NotFound: No such deployment, or not one that this key may work.
        """
        if key.deployment_id is None:
            return await self._deployments.get(key.project_id, model)
        deployment = await self._deployments.get_even_deleted(key.project_id, key.deployment_id)
        if model not in {deployment.id, deployment.name}:
            raise NotFound(what="deployment", id=model)
        return deployment

    async def expire(self, now: float) -> int:
        """End the claims that have run out; returns how many queues got jobs back."""
        woken = await self._database.write(jobs.expire, now)
        self._wake_all(woken)
        return len(woken)

    async def lose_replica(self, replica_id: str) -> None:
        """End the claims of a replica that is gone."""
        self._wake_all(await self._database.write(jobs.lose_replica, replica_id, self._clock()))

    async def busy_replicas(self) -> frozenset[str]:
        """The replicas that have a job in hand."""
        return await self._database.read(jobs.busy_replicas)

    def wake(self, deployment_id: str) -> None:
        """A job of this deployment has become pending: have the longest waiting worker claim it."""
        self._arrivals[deployment_id] += 1
        waiter = self._next_waiter(deployment_id)
        if waiter is not None:
            self._spawn(self._serve(deployment_id, waiter))

    def _wake_all(self, deployment_ids: set[str]) -> None:
        """Several jobs may have come back at once, so every waiting worker looks."""
        for deployment_id in deployment_ids:
            for _ in range(max(1, len(self._waiters[deployment_id]))):
                self.wake(deployment_id)

    async def _claim(self, deployment_id: str, worker: Worker) -> Claim | None:
        now = self._clock()
        return await self._database.write(
            jobs.claim, deployment_id, worker, new_token(), now, claim_expires_at(worker, now)
        )

    async def _submit_to(self, waiter: _Waiter, job: Job) -> None:
        """Store a job and claim for a waiting worker in one transaction."""
        arrivals = self._arrivals[job.deployment_id]
        now = self._clock()
        try:
            claim = await self._database.write_handing_over(
                lambda claim: self._hand_over_if_any(waiter, claim),
                _insert_and_claim,
                job,
                waiter.worker,
                new_token(),
                now,
                claim_expires_at(waiter.worker, now),
            )
        except BaseException:
            self._return(waiter, job.deployment_id, arrivals)
            raise
        if claim is None:
            self._return(waiter, job.deployment_id, arrivals)
        elif claim.job.id != job.id:
            self.wake(job.deployment_id)  # an older or more urgent job went first: this one still waits

    async def _serve(self, deployment_id: str, waiter: _Waiter) -> None:
        """Claim for a waiting worker, as long as jobs keep arriving and others are quicker."""
        arrivals = self._arrivals[deployment_id]
        try:
            claim = await self._claim(deployment_id, waiter.worker)
        except Exception:
            self._return(waiter, deployment_id, arrivals)
            raise
        if claim is None:
            self._return(waiter, deployment_id, arrivals)
        else:
            self._hand_over(waiter, claim)

    def _return(self, waiter: _Waiter, deployment_id: str, arrivals: int) -> None:
        """Put a worker that got nothing back to the head of the line, unless a job arrived while it was away."""
        if waiter.gone:
            return
        if arrivals != self._arrivals[deployment_id]:
            self._spawn(self._serve(deployment_id, waiter))
        else:
            self._waiters[deployment_id].appendleft(waiter)

    def _hand_over_if_any(self, waiter: _Waiter, claim: Claim | None) -> None:
        if claim is not None:
            self._hand_over(waiter, claim)

    def _hand_over(self, waiter: _Waiter, claim: Claim) -> None:
        if waiter.gone:
            self._spawn(self._take_back(claim))
        else:
            waiter.handed.set_result(claim)

    async def _take_back(self, claim: Claim) -> None:
        """Free a claim whose worker hung up before it got it; a store that is away for a moment is waited for."""
        for pause_seconds in TAKE_BACK_PAUSES_SECONDS:
            try:
                await self.release(claim.job.project_id, claim.job.id, Holder(token=claim.token))
            except StoreUnavailable:
                await asyncio.sleep(pause_seconds)
            except (NotFound, StaleAttempt):
                return
            else:
                return
        log.error("claim.not_taken_back job=%s", claim.job.id)

    def _next_waiter(self, deployment_id: str) -> _Waiter | None:
        line = self._waiters[deployment_id]
        while line:
            waiter = line.popleft()
            if not waiter.gone:
                return waiter
        return None

    def _forget(self, deployment_id: str, waiter: _Waiter) -> None:
        line = self._waiters[deployment_id]
        if waiter in line:
            line.remove(waiter)

    def _spawn(self, work: "Any") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def new_token() -> str:
    """What fences one attempt."""
    return secrets.token_hex(16)


def claim_expires_at(worker: Worker, now: float) -> float:
    """Until when a new claim holds without a renewal."""
    if worker.claim_timeout_seconds is not None:
        return now + worker.claim_timeout_seconds
    return now + (UNRENEWED_CLAIM_SECONDS if worker.replica_id is None else REPLICA_CLAIM_SECONDS)


def _insert_and_claim(
    conn: Connection, job: Job, worker: Worker, token: str, now: float, expires_at: float
) -> Claim | None:
    jobs.insert(conn, job)
    return jobs.claim(conn, job.deployment_id, worker, token, now, expires_at)


def _check_object(raw: msgspec.Raw, param: str) -> None:
    if not bytes(raw).lstrip().startswith(b"{"):
        raise InvalidRequest(f'\'{param}\' must be a JSON object, such as {{"prompt": "hello"}}.', param=param)
