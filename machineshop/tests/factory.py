"""What the platform's tests make: jobs in any state, a clock that moves, and bounded waits."""

import asyncio
import itertools
import time
from collections.abc import Callable

import msgspec

from machineshop.models import Claim, Deployment, Job, Worker
from machineshop.services.queue import QueueService
from machineshop.states import JobState
from machineshop.store.jobs import Holder

ADMIN_KEY = "a-key-that-only-tests-use"
WORKER = Worker(hostname="host-1", claim_timeout_seconds=90)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class AnyArtifact:
    """Resolves every reference to itself."""

    async def resolve(self, project_id: str, image: str, *, accepts: object) -> str:
        return image


async def never_disconnected() -> None:
    await asyncio.Event().wait()


class Jobs:
    """Makes valid jobs in any state, by the ways in which they get there."""

    def __init__(self, queue: QueueService, deployment: Deployment) -> None:
        self.queue = queue
        self.deployment = deployment
        self.project_id = deployment.project_id
        self._numbers = itertools.count()

    async def pending(self, *, priority: int = 0) -> Job:
        payload = msgspec.Raw(msgspec.json.encode({"number": next(self._numbers)}))
        return await self.queue.submit(self.project_id, self.deployment.name, payload, priority)

    async def claim(self, worker: Worker = WORKER) -> Claim | None:
        return await self.queue.retrieve(self.deployment, worker, 0, never_disconnected)

    async def running(self, worker: Worker = WORKER) -> Claim:
        await self.pending()
        claim = await self.claim(worker)
        assert claim is not None
        return claim

    async def get(self, job_id: str) -> Job:
        return await self.queue.status(self.project_id, self.deployment.name, job_id)

    async def in_state(self, state: JobState) -> tuple[str, str]:
        """A job's id and its last attempt's token (empty where it never had one)."""
        if state in {JobState.PENDING, JobState.CANCELED}:
            job = await self.pending()
            if state is JobState.CANCELED:
                await self.queue.cancel(self.project_id, self.deployment.name, job.id)
            return job.id, ""
        claim = await self.running()
        holder = Holder(token=claim.token)
        if state is JobState.DONE:
            await self.queue.finish(self.project_id, claim.job.id, holder, msgspec.Raw(b"{}"), {})
        elif state is JobState.FAILED:
            await self.queue.fail(self.project_id, claim.job.id, holder, {"error": "x"})
        return claim.job.id, claim.token


Condition = Callable[[], bool]


async def eventually(condition: Condition, seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
