"""What the reconciler tells the runtime."""

from collections.abc import Sequence
from typing import cast

from factory import Clock
from machineshop.control.reconciler import Reconciler
from machineshop.models import Deployment
from machineshop.runtime.base import ArtifactKind, Replica, ReplicaStatus, RevisionSpec, Runtime
from machineshop.services.deployments import DeploymentService
from machineshop.services.traffic import Traffic
from machineshop.services.upkeep import QueueUpkeep
from machineshop.store import revisions
from machineshop.store.database import Database


class Noting:
    """A runtime that notes what it is told, and registry enough for it."""

    accepts = frozenset({ArtifactKind.BUNDLE})

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.applied: list[tuple[RevisionSpec, list[RevisionSpec]]] = []
        self.unknown: set[str] = set()

    async def observe(self, deployment_id: str | None = None) -> list[Replica]:
        return [replica for replica in self.replicas if deployment_id in (None, replica.deployment_id)]

    async def apply(
        self, spec: RevisionSpec, _replicas: int, _busy: frozenset[str], older: Sequence[RevisionSpec]
    ) -> None:
        self.applied.append((spec, list(older)))

    async def kind_of(self, _project_id: str, image: str, _accepts: frozenset[ArtifactKind]) -> ArtifactKind | None:
        return None if image in self.unknown else ArtifactKind.BUNDLE

    def runs(self, deployment: Deployment, status: ReplicaStatus = ReplicaStatus.RUNNING) -> None:
        """A replica of what a deployment is now."""
        self.replicas.append(
            Replica(
                id=f"r{len(self.replicas)}",
                deployment_id=deployment.id,
                revision_id=deployment.revision_id,
                image="i",
                status=status,
                created_at=0.0,
            )
        )


async def test_revisions_that_serve_while_the_active_one_is_not_ready_are_told_to_the_runtime(
    database: Database, deployments: DeploymentService, deployment: Deployment, upkeep: QueueUpkeep, clock: Clock
) -> None:
    runtime = Noting()
    reconciler = Reconciler(database, cast("Runtime", runtime), upkeep, Traffic(), runtime)
    variables = [{"name": "A", "value": "new"}]
    changes = {"image": "i@sha256:2", "environment_variables": variables, "description": "kept"}
    runtime.runs(deployment)
    ended = await deployments.update(deployment.project_id, deployment.id, {"image": "i@sha256:3"})
    runtime.runs(ended, ReplicaStatus.TERMINATED)
    new = await deployments.update(deployment.project_id, deployment.id, changes)
    runtime.runs(new)

    runtime.unknown = {deployment.config.image}
    await reconciler.run_once(clock.now)
    assert runtime.applied == [], "what the old one is cannot be told yet"
    runtime.unknown = set()
    await reconciler.run_once(clock.now)
    ((spec, (older,)),) = runtime.applied
    assert (spec.revision_id, spec.environment) == (new.revision_id, {"A": "new"})
    assert (older.revision_id, older.image, older.environment) == (
        deployment.revision_id,
        deployment.config.image,
        {},
    )

    await database.write(revisions.note_ready, new.id, new.revision_id, clock.now)
    await reconciler.run_once(clock.now)
    assert runtime.applied[1][1] == [], "it needs no other any more"
