"""Settles how the active revisions fare: all ready, or not to get ready by themselves.

Place in the flow: the planner takes nothing away from a revision that works, so a failed rollout needs no hurry. What
is settled here is what people are told of it, and, where they asked for that, the way back.
"""

import logging
from collections.abc import Sequence

from machineshop.control.apart import Apart
from machineshop.models import Deployment, RevisionFailure
from machineshop.runtime.base import Replica, Runtime
from machineshop.services.deployments import DeploymentService
from machineshop.services.status import BROKEN_REASONS, standing
from machineshop.states import DeploymentStatus
from machineshop.store import deployments, revisions
from machineshop.store.database import Database

log = logging.getLogger(__name__)

# The runtime says these once it has tried for a while, or where trying again mends nothing.
SETTLED_REASONS = frozenset({"CrashLoopBackOff", "ImagePullBackOff"})
# Anything else may be over with the next try: a secret that is being made, a full disk.
PATIENCE_SECONDS = 15.0
LOG_LINES = 20


class Rollouts:
    """One look at the revisions that have not been ready yet."""

    def __init__(self, database: Database, runtime: Runtime, service: DeploymentService) -> None:
        self._database = database
        self._runtime = runtime
        self._service = service
        self._failing_since: dict[str, float] = {}
        self._served: dict[str, set[str]] = {}
        """By deployment, the revisions before the active one that are noted as ready."""
        self._apart = Apart("rollouts")

    async def run_once(self, now: float) -> None:
        """Note which are ready now, and which fail."""
        unsettled = await self._database.read(revisions.unsettled)
        self._failing_since = {id_: at for id_, at in self._failing_since.items() if id_ in unsettled}
        if not unsettled:
            self._served.clear()
            return
        wanted = await self._database.read(deployments.list_of_all_projects)
        self._apart.keep({deployment.id for deployment in wanted})
        waiting = {deployment.id for deployment in wanted if deployment.revision_id in unsettled}
        self._served = {id_: served for id_, served in self._served.items() if id_ in waiting}
        for deployment in wanted:
            if deployment.revision_id not in unsettled:
                continue
            with self._apart.turn(deployment.id):
                await self._look(deployment, await self._runtime.observe(deployment.id), now)

    async def _look(self, deployment: Deployment, replicas: Sequence[Replica], now: float) -> None:
        await self._note_served(deployment, replicas, now)
        status = standing(deployment, replicas, now).status
        if status is DeploymentStatus.READY and deployment.replicas > 0:
            await self._database.write(revisions.note_ready, deployment.id, deployment.revision_id, now)
            return
        broken = _broken(deployment, replicas) if status is DeploymentStatus.FAILED else None
        if broken is None:
            self._failing_since.pop(deployment.revision_id, None)
            return
        since = self._failing_since.setdefault(deployment.revision_id, now)
        if broken.reason in SETTLED_REASONS or now - since >= PATIENCE_SECONDS:
            await self._give_up(deployment, broken, now)

    async def _note_served(self, deployment: Deployment, replicas: Sequence[Replica], now: float) -> None:
        """Note that revisions work which were replaced before that was seen: they serve until the active one does."""
        ready = {replica.revision_id for replica in replicas if replica.ready_since is not None}
        known = self._served.setdefault(deployment.id, set())
        for revision_id in ready - known - {deployment.revision_id}:
            await self._database.write(revisions.note_ready, deployment.id, revision_id, now)
            known.add(revision_id)

    async def _give_up(self, deployment: Deployment, broken: Replica, now: float) -> None:
        failure = RevisionFailure(
            reason=broken.reason or "Error",
            message=broken.message or "See its logs.",
            replica_id=broken.id,
            log=await self._last_lines(broken),
            failed_at=now,
        )
        back = await self._service.give_up(deployment, failure)
        if back is not None:
            log.warning(
                "deployment.rolled_back deployment_id=%s from=%d to=%d reason=%s",
                deployment.id,
                deployment.revision_number,
                back.revision_number,
                failure.reason,
            )

    async def _last_lines(self, replica: Replica) -> tuple[str, ...]:
        lines = self._runtime.logs(replica.deployment_id, replica.id, tail=LOG_LINES, follow=False)
        return tuple([line.text async for line in lines])


def _broken(deployment: Deployment, replicas: Sequence[Replica]) -> Replica | None:
    """A replica of the active revision that will not mend by waiting, where none of them is ready."""
    current = [r for r in replicas if r.revision_id == deployment.revision_id and not r.draining]
    if any(replica.ready_since is not None for replica in current):
        return None
    return next((replica for replica in current if replica.reason in BROKEN_REASONS), None)
