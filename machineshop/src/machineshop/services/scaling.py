"""What the autoscaler has decided, for those who ask why there are so many replicas."""

from typing import Protocol

import msgspec

from machineshop.models import Deployment, ScalingDecision
from machineshop.services.deployments import DeploymentService
from machineshop.store import scaling
from machineshop.store.database import Database
from machineshop.store.scaling import KEPT_DECISIONS


class Looks(Protocol):
    """Who looks at deployments: the scaler."""

    def latest(self, deployment_id: str) -> ScalingDecision | None:
        """The last look at a deployment, whether it changed anything or not."""
        ...


class Scaling(msgspec.Struct, frozen=True):
    """How many replicas a deployment should have, and how it came to that."""

    deployment: Deployment
    latest: ScalingDecision | None
    decisions: list[ScalingDecision]
    """Those that changed the number, the newest first."""


class ScalingService:
    """Answers why."""

    def __init__(self, database: Database, deployments: DeploymentService, looks: Looks) -> None:
        self._database = database
        self._deployments = deployments
        self._looks = looks

    async def explain(self, project_id: str, name_or_id: str, limit: int) -> Scaling:
        """The present number with its reason, and the last decisions.

        Raises:
            NotFound: The project has no such deployment.
        """
        deployment = await self._deployments.get(project_id, name_or_id)
        decisions = await self._database.read(scaling.list_decisions, deployment.id, min(limit, KEPT_DECISIONS))
        return Scaling(deployment, self._looks.latest(deployment.id), decisions)
