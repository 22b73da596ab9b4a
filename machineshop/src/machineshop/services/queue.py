"""The queue, for those who submit: submit, watch, take back. Each operation on a job is one transition.

`submissions` has what may become a job, `work` what workers do, and `upkeep` what the control loops do.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from machineshop.errors import InvalidRequest, NotFound, NotResubmittable
from machineshop.ids import new_id, new_ids
from machineshop.models import FairKey, Include, Job, QueueCounts, QueueSettings
from machineshop.services.changes import Changes
from machineshop.services.deployments import DeploymentService
from machineshop.services.dispatch import Dispatcher
from machineshop.services.submissions import Submission, Submitted, check, check_keys, job_again, new_job
from machineshop.states import TERMINAL_STATES, JobState
from machineshop.store import chunks, jobs, queues, withdrawals
from machineshop.store.database import Database
from machineshop.store.jobs import JobFilter, Page

MAX_BATCH = 1000
# How long the worker of a canceled job has to stop before its replica is replaced.
CANCEL_GRACE_SECONDS = 30.0
MAX_CANCEL_GRACE_SECONDS = 3600.0


class QueueService:
    """The operations of those who submit, and of those who look after a queue."""

    def __init__(
        self,
        database: Database,
        deployments: DeploymentService,
        clock: Callable[[], float] = time.time,
        check_webhook_url: Callable[[str], object] = str,
    ) -> None:
        self._database = database
        self._deployments = deployments
        self._clock = clock
        self._check_webhook_url = check_webhook_url
        self.changes = Changes()
        self.dispatcher = Dispatcher(database, self.changes, clock)

    def close(self) -> None:
        """Send home all who wait; from now on none waits."""
        self.dispatcher.close()
        self.changes.close()

    async def submit(self, project_id: str, submission: Submission) -> Submitted:
        """Store a job; it is on disk when this returns.

        Raises:
            NotFound: No such deployment.
            InvalidRequest: The payload is not an object, or another field is out of range.
            PayloadTooLarge: The payload is longer than `PAYLOAD_LIMIT_BYTES`.
            QueueFull: Too many jobs wait already.
            IdempotencyConflict: The idempotency key stands for a job with another payload.
        """
        check(submission, "", self._check_webhook_url)
        deployment = await self._deployments.get(project_id, submission.model)
        job = new_job(deployment, submission, new_id(), self._clock())
        stored = await self.dispatcher.submit_one(job)
        if stored is job:
            self.changes.tell(deployment.id, [job.id])
        return Submitted(stored, stored is not job)

    async def submit_many(self, project_id: str, submissions: Sequence[Submission]) -> list[Submitted]:
        """Store jobs, all or none. Raises as `submit`; `param` names the place in the array.

        Raises:
            IdempotencyKeyReused: Two of them have the same idempotency key and different payloads.
        """
        if not 1 <= len(submissions) <= MAX_BATCH:
            raise InvalidRequest(f"An array holds 1 to {MAX_BATCH} jobs, not {len(submissions)}.")
        for number, submission in enumerate(submissions):
            check(submission, f"[{number}].", self._check_webhook_url)
        found = {model: await self._deployments.get(project_id, model) for model in {s.model for s in submissions}}
        now, ids = self._clock(), new_ids(len(submissions))
        new = [
            new_job(found[submission.model], submission, job_id, now)
            for job_id, submission in zip(ids, submissions, strict=True)
        ]
        check_keys(new)
        queued: defaultdict[str, list[Job]] = defaultdict(list)
        for job in new:
            queued[job.deployment_id].append(job)
        stored = await self._store(dict(queued))
        return [Submitted(stored[job.id], stored[job.id] is not job) for job in new]

    async def resubmit(self, project_id: str, model: str, job_ids: Sequence[str]) -> list[Job]:
        """Submit ended jobs again, all or none; the old ones stay as they are.

        Raises:
            NotFound: No such deployment or job.
            NotResubmittable: One has not ended.
        """
        if not 1 <= len(job_ids) <= MAX_BATCH:
            raise InvalidRequest(f"'request_ids' holds 1 to {MAX_BATCH} ids, not {len(job_ids)}.", param="request_ids")
        deployment = await self._deployments.get(project_id, model)
        ended = await self._database.read(jobs.get_many, project_id, deployment.id, job_ids)
        found = {job.id: job for job in ended}
        for job_id in job_ids:
            if job_id not in found:
                raise NotFound(what="job", id=job_id)
            if found[job_id].state not in TERMINAL_STATES:
                raise NotResubmittable(id=job_id, state=found[job_id].state)
        now = self._clock()
        again = [job_again(found[job_id], now) for job_id in dict.fromkeys(job_ids)]
        await self._store({deployment.id: again})
        return again

    async def _store(self, queued: dict[str, list[Job]]) -> dict[str, Job]:
        """Add jobs of several deployments in one transaction; what each is now, by its id."""

        def insert_all(conn: Any) -> dict[str, Job]:
            return {
                job.id: stored
                for new in queued.values()
                for job, stored in zip(new, jobs.insert(conn, new), strict=True)
            }

        stored = await self._database.write_in_queues(list(queued), insert_all)
        for deployment_id, new in queued.items():
            self.dispatcher.wake(deployment_id, len(new))
            self.changes.tell(deployment_id, [job.id for job in new])
        return stored

    async def status(self, project_id: str, model: str, job_id: str) -> Job:
        """A job as it is now.

        Raises:
            NotFound: No such job of this deployment.
        """
        job = await self._database.read_briefly(jobs.get, project_id, model, job_id)
        if job is None:
            raise NotFound(what="job", id=job_id)
        return job

    async def given(self, job: Job) -> list[msgspec.Raw]:
        """What a running job has given of its outputs so far; nothing for one that does not run."""
        if job.state is not JobState.RUNNING:
            return []
        return await self._database.read(chunks.read_all, job.id, job.attempt)

    async def results(
        self, project_id: str, model: str, job_ids: Sequence[str], include: Include = Include.PAYLOAD
    ) -> list[Job]:
        """Several jobs as they are now, in the order asked for, without those that there are not.

        As `status` it finds those of a deployment of this name that was deleted, also where there is a new one.

        Raises:
            NotFound: No such deployment, and none of the jobs.
            AnswerTooLarge: Together they are too large.
        """
        if len(job_ids) > MAX_BATCH:
            raise InvalidRequest(f"'request_ids' holds at most {MAX_BATCH} ids.", param="request_ids")
        read = self._database.read if len(job_ids) > 1 else self._database.read_briefly
        found = await read(jobs.get_many, project_id, model, job_ids, include)
        if not found:
            await self._deployments.get(project_id, model)
        return found

    async def list_page(
        self,
        project_id: str,
        model: str,
        chosen: JobFilter,
        before: int | None,
        limit: int,
        include: Include = Include.PAYLOAD,
    ) -> Page:
        """A deployment's jobs, the newest first, from the one before the sequence number `before` on.

        Raises:
            NotFound: No such deployment.
        """
        deployment = await self._deployments.get(project_id, model)
        return await self._database.read(jobs.list_page, deployment.id, chosen, before, limit, include)

    async def cancel(
        self, project_id: str, model: str, job_id: str, grace_seconds: float = CANCEL_GRACE_SECONDS
    ) -> Job:
        """Cancel a pending job, or ask a running one's worker to stop; returns the job as it is then.

        A worker that has not stopped after `grace_seconds` loses the job, and its replica is replaced.

        Raises:
            NotFound: No such job of this deployment.
        """
        deployment_id = (await self.status(project_id, model, job_id)).deployment_id
        now = self._clock()
        await self._database.write_in_queue(
            deployment_id, withdrawals.cancel, deployment_id, job_id, now, now + grace_seconds
        )
        self.changes.tell(deployment_id, [job_id])
        return await self.status(project_id, model, job_id)

    async def clear(self, project_id: str, model: str) -> int:
        """Cancel all jobs of a deployment that are pending now; returns how many.

        Raises:
            NotFound: No such deployment.
        """
        deployment = await self._deployments.get(project_id, model)
        return await self._clear(deployment.id)

    async def _clear(self, deployment_id: str) -> int:
        up_to = await self._database.read(withdrawals.last_sequence, deployment_id)
        total = 0
        while number := await self._database.write_in_queue(
            deployment_id, withdrawals.clear, deployment_id, up_to, self._clock()
        ):
            total += number
        self.changes.tell(deployment_id)
        return total

    async def count(self, project_id: str, model: str, *, of: str | None = None) -> QueueCounts:
        """How many jobs of a deployment wait and run; with `of`, of the one with this id alone.

        Raises:
            NotFound: No such deployment.
        """
        deployment = await self._deployments.get(project_id, model)
        if of not in {None, deployment.id}:
            raise NotFound(what="deployment", id=model)
        return await self._database.read(jobs.count, deployment.id)

    async def settings(self, project_id: str, model: str) -> QueueSettings:
        """How a deployment's queue is kept.

        Raises:
            NotFound: No such deployment.
        """
        deployment = await self._deployments.get(project_id, model)
        return await self._database.read(queues.settings, deployment.id)

    async def change_settings(
        self, project_id: str, model: str, changed: dict[str, Any], keys: dict[str, FairKey | None]
    ) -> QueueSettings:
        """Change what is named, and nothing else; a fair key that is None is forgotten.

        Raises:
            NotFound: No such deployment.
        """
        deployment = await self._deployments.get(project_id, model)
        settings = await self._database.write_in_queue(
            deployment.id, queues.change_settings, deployment.id, changed, keys
        )
        self.dispatcher.wake(deployment.id, self.dispatcher.waiters.count(deployment.id))
        return settings

    async def look_again(self, deployment_id: str) -> None:
        """Another server has written in this queue: have those who wait here look, where there is something."""
        self.changes.tell(deployment_id)
        self.dispatcher.tell_pending(deployment_id)
        waiting = self.dispatcher.waiters.count(deployment_id)
        if waiting:
            pending = (await self._database.read(queues.counts, deployment_id)).pending
            self.dispatcher.wake(deployment_id, min(pending, waiting))
