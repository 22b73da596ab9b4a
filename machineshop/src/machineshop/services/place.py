"""Finds out where a pending job stands: reads its queue, asks who works it, and has `waiting` judge."""

import time
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Connection

from machineshop.models import Deployment, Job
from machineshop.runtime.base import Replica
from machineshop.services.deployments import DeploymentService
from machineshop.services.status import Standing, standing
from machineshop.services.waiters import Waiters
from machineshop.services.waiting import Facts, Place, explain
from machineshop.store import places
from machineshop.store.database import Database


class Replicas(Protocol):
    """Who knows the replicas: the runtime."""

    async def observe(self, deployment_id: str | None = None) -> list[Replica]:
        """Those of one deployment, or all of them."""
        ...


class Places:
    """Answers why a job waits.

    Args:
        database: Where the queue lies.
        deployments: What should run.
        replicas: What runs.
        waiters: Who asks for jobs at this moment.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        deployments: DeploymentService,
        replicas: Replicas,
        waiters: Waiters,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._deployments = deployments
        self._replicas = replicas
        self._waiters = waiters
        self._clock = clock

    async def find(self, job: Job) -> Place:
        """Where a pending job stands now.

        Raises:
            NotFound: Its deployment has been removed.
        """
        deployment = await self._deployments.get_even_deleted(job.project_id, job.deployment_id)
        replicas = await self._standing(deployment)
        # In the reader's thread: what is read is judged there too, so that nobody waits for that.
        return await self._database.read(self._explain, job, replicas)

    async def _standing(self, deployment: Deployment) -> Standing:
        return standing(deployment, await self._replicas.observe(deployment.id), self._clock())

    def _explain(self, conn: Connection, job: Job, replicas: Standing) -> Place:
        facts = Facts(
            fair_key=job.fair_key,
            ahead=places.ahead(conn, job),
            pace=places.pace(conn, job.deployment_id, job.fair_key),
            replicas=replicas,
            waiting_workers=self._waiters.count(job.deployment_id),
            now=self._clock(),
        )
        return explain(facts)
