"""Tells the runtime what should run, and clears away after deployments that are gone.

Place in the flow: the store says what is wanted; this loop hands it to the runtime again and again, so that nothing
the runtime needs lives only in memory.
"""

import logging
from typing import Protocol

import msgspec

from machineshop.control.apart import Apart
from machineshop.models import Deployment, VolumeMount
from machineshop.runtime.base import (
    ArtifactKind,
    MountedVolume,
    Replica,
    ReplicaStatus,
    RevisionSpec,
    RunEnd,
    Runtime,
)
from machineshop.services.deployment_rules import secrets_of, with_revision
from machineshop.services.identity import IdentityService
from machineshop.services.secrets import SecretService
from machineshop.services.traffic import Traffic
from machineshop.services.upkeep import QueueUpkeep
from machineshop.store import deployments, jobs, revisions
from machineshop.store.database import Database

log = logging.getLogger(__name__)


class Kinds(Protocol):
    """Who knows what an image reference means: the registry."""

    async def kind_of(self, project_id: str, image: str, accepts: frozenset[ArtifactKind]) -> ArtifactKind | None:
        """A bundle or an image; one of `accepts` where it is gone; None where that takes a while to be known."""
        ...


class Reconciler:
    """One pass over all deployments."""

    def __init__(
        self, database: Database, runtime: Runtime, upkeep: QueueUpkeep, traffic: Traffic, kinds: Kinds
    ) -> None:
        self._database = database
        self._kinds = kinds
        self._runtime = runtime
        self._upkeep = upkeep
        self._traffic = traffic
        self._apart = Apart("reconcile")

    async def run_once(self, _now: float) -> None:
        """Declare every live deployment to the runtime, and end what belongs to none."""
        wanted = await self._database.read(deployments.list_of_all_projects)
        busy = await self._database.read(jobs.busy_replicas) | self._traffic.busy_replicas()
        unsettled = await self._database.read(revisions.unsettled)
        for deployment in wanted:
            with self._apart.turn(deployment.id):
                older = await self._older(deployment) if deployment.revision_id in unsettled else []
                specs = [await self._spec(each) for each in (deployment, *older)]
                known = [spec for spec in specs if spec is not None]
                if len(known) == len(specs):  # until then what runs of it runs on
                    await self._runtime.apply(known[0], deployment.replicas, busy, known[1:])
        live = {deployment.id for deployment in wanted}
        self._apart.keep(live)
        self._traffic.keep(frozenset(live))
        replicas = await self._runtime.observe()
        for deployment_id in {replica.deployment_id for replica in replicas} - live:
            await self._runtime.delete(deployment_id)
        await self._end_jobs_of_gone(replicas)

    async def _older(self, deployment: Deployment) -> list[Deployment]:
        """The deployment as it was in the revisions whose replicas serve while its present one is not ready.

        This server may have found them running, and knows nothing of them but for this.
        """
        seen = await self._runtime.observe(deployment.id)
        ids = {replica.revision_id for replica in seen if replica.status is not ReplicaStatus.TERMINATED}
        found = [
            await self._database.read(revisions.get, deployment.id, revision_id)
            for revision_id in sorted(ids - {deployment.revision_id})
        ]
        return [
            msgspec.structs.replace(
                deployment,
                config=with_revision(deployment.config, revision.config),
                revision_id=revision.id,
                revision_number=revision.number,
            )
            for revision in found
            if revision is not None
        ]

    async def _spec(self, deployment: Deployment) -> RevisionSpec | None:
        """What the runtime needs to know; None where it takes a while to be known what the image is."""
        kind = await self._kinds.kind_of(deployment.project_id, deployment.config.image, self._runtime.accepts)
        return None if kind is None else revision_spec(deployment, kind)

    async def _end_jobs_of_gone(self, replicas: list[Replica]) -> None:
        """Jobs of a deleted deployment may finish while its replicas drain; after that nobody will."""
        live = {replica.deployment_id for replica in replicas if replica.status is not ReplicaStatus.TERMINATED}
        for _, deployment_id in await self._database.read(jobs.deleted_deployments_with_jobs):
            if deployment_id not in live:
                await self._upkeep.end_all(deployment_id)
                log.info("deployment.jobs_ended deployment_id=%s", deployment_id)


class Permission(Protocol):
    """Who says whether this server may start replicas: the lease."""

    def require(self) -> None:
        """Return where it may.

        Raises:
            LeaseLost: It may not.
        """


class PlatformWatcher:
    """What the platform does around the life of a replica: its key and secrets, and the jobs it held."""

    def __init__(
        self,
        identity: IdentityService,
        upkeep: QueueUpkeep,
        secrets: SecretService,
        permission: Permission,
        traffic: Traffic,
    ) -> None:
        self._identity = identity
        self._upkeep = upkeep
        self._secrets = secrets
        self._permission = permission
        self._traffic = traffic

    async def issue_key(self, spec: RevisionSpec, replica_id: str) -> str:
        """A fresh worker key; an earlier one of this replica ends.

        Raises:
            LeaseLost: Another server may run the replicas by now: none starts here.
        """
        self._permission.require()
        await self._identity.revoke_replica_keys(replica_id)
        return await self._identity.create_worker_key(spec.project_id, spec.deployment_id, replica_id)

    async def reveal(self, spec: RevisionSpec) -> RevisionSpec:
        """With the values of its secrets in the environment of this one start."""
        values = await self._secrets.reveal(spec.project_id, spec.secrets)
        return msgspec.structs.replace(spec, environment={**spec.environment, **values})

    def replica_leaving(self, replica_id: str) -> bool:
        """It gets no job any more; a request that it has not answered may not have reached it yet."""
        self._upkeep.dispatcher.leave(replica_id)
        return self._traffic.in_flight(replica_id) > 0

    async def replica_exited(self, replica_id: str, run: RunEnd | None = None) -> bool:
        """Take the key back first, so that nothing the dead replica sent can renew what is freed next."""
        await self._identity.revoke_replica_keys(replica_id)
        self._upkeep.dispatcher.gone(replica_id)
        await self._upkeep.lose_replica(replica_id, None if run is None else run.how)
        answered = self._traffic.answered_by(replica_id) > 0
        self._traffic.forget_replica(replica_id)
        if run is None or answered:
            return answered
        return await self._upkeep.has_worked(run.deployment_id, replica_id, run.started_at)


def revision_spec(deployment: Deployment, kind: ArtifactKind = ArtifactKind.BUNDLE) -> RevisionSpec:
    """What the runtime needs to know of a deployment."""
    config = deployment.config
    return RevisionSpec(
        deployment_id=deployment.id,
        deployment_name=deployment.name,
        project_id=deployment.project_id,
        revision_id=deployment.revision_id,
        image=config.image,
        artifact=kind,
        command=config.command,
        args=config.args,
        environment={v.name: v.value or "" for v in config.environment_variables if v.value_from_secret is None},
        secrets=secrets_of(config),
        volumes=tuple(_mounted(mount) for mount in config.volumes),
        cpu=config.cpu,
        memory_gib=config.memory,
        storage_gib=config.storage,
        gpu_type=config.gpu_type,
        gpu_count=config.gpu_count,
        port=config.port,
        health_check_path=config.health_check_path,
        startup_timeout_seconds=config.startup_timeout_seconds,
        grace_period_seconds=config.termination_grace_period_seconds,
    )


def _mounted(mount: VolumeMount) -> MountedVolume:
    """A mount of a revision, where it always says which volume it means, and which version."""
    volume_id, version = mount.volume_id or "", mount.version or 0
    return MountedVolume(volume_id=volume_id, name=mount.name, version=version, mount_path=mount.mount_path)
