"""Work: what workers do in a queue. They claim jobs, which `dispatch` hands out, and say what becomes of them."""

import time
from collections.abc import Awaitable, Callable

import msgspec

from machineshop.errors import NotFound
from machineshop.models import ApiKey, Claim, Deployment, Worker
from machineshop.services.changes import Changes
from machineshop.services.deployments import DeploymentService
from machineshop.services.dispatch import Dispatcher
from machineshop.services.intake import BRIEF_BYTES, BRIEF_JOBS
from machineshop.services.submissions import check_object
from machineshop.services.waiters import Answer
from machineshop.states import JobVerb
from machineshop.store import jobs, turns
from machineshop.store.database import Database
from machineshop.store.moves import Holder
from machineshop.store.turns import Told, Turn, Update


class WorkService:
    """The operations of workers.

    Args:
        database: Where the queues lie.
        deployments: Whose queues they are.
        dispatcher: Hands jobs out.
        changes: Tells those who follow.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        deployments: DeploymentService,
        dispatcher: Dispatcher,
        changes: Changes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._deployments = deployments
        self._dispatcher = dispatcher
        self._changes = changes
        self._clock = clock

    async def retrieve(
        self,
        deployment: Deployment,
        worker: Worker,
        timeout_seconds: float,
        disconnected: Callable[[], Awaitable[None]],
        max_jobs: int = 1,
        answer: Answer | None = None,
    ) -> list[Claim]:
        """The next jobs for a worker; see `Dispatcher.retrieve`."""
        return await self._dispatcher.retrieve(deployment.id, worker, max_jobs, timeout_seconds, disconnected, answer)

    async def update(self, project_id: str, holder: Holder, said: Update) -> Told:
        """What a worker says of one job.

        Raises:
            NotFound: No such job.
            StaleAttempt: Somebody else holds it, or it has ended.
            InvalidRequest: The outputs are no object.
        """
        if said.verb is JobVerb.FINISH:
            check_object(said.outputs, "payload")
        deployment_id = await self._deployment_of(project_id, holder, said.job_id)
        told, opens = await self._database.write_in_queue(
            deployment_id, turns.update, project_id, holder, said, self._clock()
        )
        self._after(deployment_id, [said], [told], opens)
        return told

    async def take_turn(
        self,
        project_id: str,
        deployment: Deployment,
        holder: Holder,
        updates: list[Update],
        worker: Worker | None,
        max_jobs: int,
    ) -> Turn:
        """What a worker says of several jobs, and its claim of the next ones where `worker` is given: all at once."""
        holder = msgspec.structs.replace(holder, deployment_id=deployment.id)  # whose lock is all that is held
        if worker is not None and self._dispatcher.is_leaving(worker):
            worker = None
        wanted = None if worker is None else self._dispatcher.wanted(worker, max_jobs)
        size_bytes = sum(len(bytes(update.outputs)) for update in updates)
        is_brief = len(updates) + max_jobs <= BRIEF_JOBS and size_bytes <= BRIEF_BYTES
        write = self._database.write_briefly if is_brief else self._database.write_in_queue
        turn = await write(
            deployment.id, turns.take_turn, project_id, deployment.id, holder, updates, wanted, self._clock()
        )
        self._after(deployment.id, updates, turn.told, turn.opens)
        self._dispatcher.claimed(deployment.id, turn.handed)
        return turn

    def _after(self, deployment_id: str, updates: list[Update], told: list[Told], opens: bool) -> None:
        """Tell those who wait and those who follow."""
        if opens:
            self._dispatcher.wake(deployment_id, len(updates))
        changed = [
            update.job_id
            for update, answer in zip(updates, told, strict=True)
            if answer.error is None and (update.verb is not JobVerb.RENEW or update.info or update.given)
        ]
        if changed:
            self._changes.tell(deployment_id, changed)

    async def _deployment_of(self, project_id: str, holder: Holder, job_id: str) -> str:
        """Whose queue a job is in: a replica's own, else looked up."""
        if holder.deployment_id is not None:
            return holder.deployment_id
        deployment_id = await self._database.read(jobs.deployment_of, project_id, job_id)
        if deployment_id is None:
            raise NotFound(what="job", id=job_id)
        return deployment_id

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
