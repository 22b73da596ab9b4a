"""What the platform's tests make: jobs in any state, a clock that moves, and bounded waits."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from machineshop.app import Platform
from machineshop.models import Claim, Deployment, Job, Worker
from machineshop.services.queue import QueueService
from machineshop.services.submissions import Submission
from machineshop.services.upkeep import QueueUpkeep
from machineshop.services.work import WorkService
from machineshop.states import JobState, JobVerb
from machineshop.store.moves import Holder
from machineshop.store.turns import Told, Update

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


def connected(platform: Platform, key: str) -> httpx.AsyncClient:
    """A client of a whole server, with a key."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=platform.base_url, headers=headers, timeout=60, verify=False)


async def never_disconnected() -> None:
    await asyncio.Event().wait()


def work_of(queue: QueueService) -> WorkService:
    """What workers have for the same queue."""
    return WorkService(queue._database, queue._deployments, queue.dispatcher, queue.changes, queue._clock)


def upkeep_of(queue: QueueService) -> QueueUpkeep:
    """What the control loops have for the same queue."""
    return QueueUpkeep(queue._database, queue.dispatcher, queue.changes, queue._clock)


class Jobs:
    """Makes valid jobs in any state, by the ways in which they get there."""

    def __init__(self, queue: QueueService, deployment: Deployment) -> None:
        self.queue = queue
        self.work = work_of(queue)
        self.upkeep = upkeep_of(queue)
        self.deployment = deployment
        self.project_id = deployment.project_id
        self._numbers = itertools.count()

    def submission(self, **fields: Any) -> Submission:
        payload = msgspec.Raw(msgspec.json.encode({"number": next(self._numbers)}))
        return Submission(**{"model": self.deployment.name, "payload": payload, **fields})

    async def pending(self, **fields: Any) -> Job:
        return (await self.queue.submit(self.project_id, self.submission(**fields))).job

    async def claim(self, worker: Worker = WORKER) -> Claim | None:
        claims = await self.claim_many(1, worker)
        return claims[0] if claims else None

    async def claim_many(self, number: int, worker: Worker = WORKER) -> list[Claim]:
        return await self.work.retrieve(self.deployment, worker, 0, never_disconnected, number)

    async def say(self, verb: JobVerb, job_id: str, holder: Holder, **fields: Any) -> Told:
        """What a worker says of a job."""
        said = Update(verb=verb, job_id=job_id, token=holder.token, **fields)
        return await self.work.update(self.project_id, msgspec.structs.replace(holder, token=None), said)

    async def finish(self, job_id: str, holder: Holder, outputs: bytes = b"{}", **info: Any) -> None:
        await self.say(JobVerb.FINISH, job_id, holder, outputs=msgspec.Raw(outputs), info=info)

    async def fail(self, job_id: str, holder: Holder, error: str = "x") -> None:
        await self.say(JobVerb.FAIL, job_id, holder, info={"error": error})

    async def renew(self, job_id: str, holder: Holder, **info: Any) -> bool:
        return (await self.say(JobVerb.RENEW, job_id, holder, info=info)).cancel_requested

    async def release(self, job_id: str, holder: Holder) -> None:
        await self.say(JobVerb.RELEASE, job_id, holder)

    async def abandon(self, job_id: str, holder: Holder) -> None:
        await self.say(JobVerb.ABANDON, job_id, holder)

    def polls(self) -> bool:
        """Whether a worker waits for a job."""
        return self.queue.dispatcher.waiters.count(self.deployment.id) > 0

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
            await self.finish(claim.job.id, holder)
        elif state is JobState.FAILED:
            await self.fail(claim.job.id, holder)
        return claim.job.id, claim.token


Condition = Callable[[], bool]


async def eventually(condition: Condition, seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
