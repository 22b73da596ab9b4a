"""Deployments: what should run. Creating, changing and deleting them; the control loop makes it so."""

import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

import msgspec

from machineshop.errors import ChangedMeanwhile, Conflict, InvalidRequest, NotFound
from machineshop.ids import new_id
from machineshop.models import Deployment, Revision, RevisionEvent, RevisionFailure
from machineshop.runtime.base import ArtifactKind, Capacity
from machineshop.services import deployment_rules as rules
from machineshop.services.deployment_needs import ArtifactResolver, DeploymentNeeds
from machineshop.services.volume_checks import VolumeChecks
from machineshop.store import deployments, revisions
from machineshop.store.database import Database

# Every submit and every poll looks a deployment up; another server's change is seen this much later at most, also
# where its announcement is lost.
CACHE_SECONDS = 1.0
CACHE_LIMIT = 10_000
MAX_EVENTS = 100
UPDATE_TRIES = 20


class DeploymentService:
    """The operations on deployments."""

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactResolver,
        capacity: Callable[[], Capacity],
        accepts: frozenset[ArtifactKind],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._clock = clock
        self._needs = DeploymentNeeds(database, artifacts, capacity, accepts, clock)
        self._checks = VolumeChecks(database)
        self._cache: dict[tuple[str, str], tuple[float, Deployment]] = {}
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever something was created, changed or deleted."""
        self._listeners.append(listener)

    def changed(self) -> None:
        """Some deployment was created, changed or deleted, by this server or another."""
        self._cache.clear()
        for listener in self._listeners:
            listener()

    async def create(self, project_id: str, fields: dict[str, Any]) -> Deployment:
        """A new deployment.

        Raises:
            InvalidRequest: A field is wrong, or the artifact does not exist; `param` names the field.
            AlreadyExists: The project has one of this name.
        """
        config = rules.parse(fields)
        self._needs.check_capacity(config)
        await self._needs.check_secrets(project_id, config)
        config = await self._needs.with_volumes(project_id, config, {})
        config = msgspec.structs.replace(config, image=await self._needs.pin(project_id, config.image))
        now = self._clock()
        deployment = Deployment(
            id=new_id(),
            project_id=project_id,
            config=config,
            revision_id=new_id(),
            revision_number=1,
            created_at=now,
            updated_at=now,
        )
        await self._checks.sealing(lambda: self._database.write(deployments.insert, deployment))
        self.changed()
        return deployment

    async def get(self, project_id: str, name_or_id: str) -> Deployment:
        """A deployment by its name or id.

        Raises:
            NotFound: The project has none such.
        """
        cached = self._cache.get((project_id, name_or_id))
        if cached is not None and cached[0] > self._clock():
            return cached[1]
        deployment = await self._database.read(deployments.get, project_id, name_or_id)
        if deployment is None:
            raise NotFound(what="deployment", id=name_or_id)
        if len(self._cache) >= CACHE_LIMIT:
            self._cache.clear()
        self._cache[project_id, name_or_id] = (self._clock() + CACHE_SECONDS, deployment)
        return deployment

    async def get_even_deleted(self, project_id: str, deployment_id: str) -> Deployment:
        """A deployment by its id, also while its last replicas drain.

        Raises:
            NotFound: The project never had one such.
        """
        try:
            return await self.get(project_id, deployment_id)
        except NotFound:
            deployment = await self._database.read(deployments.get, project_id, deployment_id, deleted=True)
            if deployment is None:
                raise
            return deployment

    async def list_live(self, project_id: str) -> list[Deployment]:
        """A project's deployments, by name."""
        return await self._database.read(deployments.list_live, project_id)

    async def update(self, project_id: str, name_or_id: str, changes: dict[str, Any]) -> Deployment:
        """Change a deployment; where that changes what its replicas run, it is a new revision and a rollout.

        Raises:
            NotFound: The project has none such.
            InvalidRequest: A field is wrong, or the artifact does not exist; `param` names the field.
            ChangedMeanwhile: Others changed it at the same time, again and again.
        """
        return await self._retried(lambda: self._update(project_id, name_or_id, changes))

    async def restart(self, project_id: str, name_or_id: str) -> Deployment:
        """Replace a deployment's replicas as a rollout does: a new revision with the same configuration.

        Raises:
            NotFound: The project has none such.
            ChangedMeanwhile: Others changed it at the same time, again and again.
        """
        return await self._retried(lambda: self._restart(project_id, name_or_id))

    async def delete(self, project_id: str, name_or_id: str) -> Deployment:
        """Delete a deployment and cancel what waits for it; its replicas drain.

        Raises:
            NotFound: The project has none such.
        """
        deployment = await self._fresh(project_id, name_or_id)
        await self._database.write_in_queue(deployment.id, deployments.delete, project_id, deployment.id, self._clock())
        self.changed()
        return deployment

    async def list_events(
        self, project_id: str, name_or_id: str, limit: int, before: int | None
    ) -> list[RevisionEvent]:
        """What became active when, the newest first.

        Raises:
            NotFound: The project has no such deployment.
        """
        deployment = await self.get(project_id, name_or_id)
        return await self._database.read(revisions.list_events, deployment.id, min(limit, MAX_EVENTS), before)

    async def get_revision(self, project_id: str, name_or_id: str, number_or_id: str) -> Revision:
        """One revision of a deployment.

        Raises:
            NotFound: No such deployment or revision.
        """
        deployment = await self.get(project_id, name_or_id)
        revision = await self._database.read(revisions.get, deployment.id, number_or_id)
        if revision is None:
            raise NotFound(what="revision", id=number_or_id, where=f" of '{deployment.name}'")
        return revision

    async def revision_numbers(self, deployment: Deployment, revision_ids: Collection[str]) -> dict[str, int]:
        """The numbers of some revisions of a deployment, by their ids, as far as they are kept."""
        known = {deployment.revision_id: deployment.revision_number}
        others = {each for each in revision_ids if each not in known}
        return known | await self._database.read(revisions.numbers, deployment.id, others) if others else known

    async def resolve_image(self, project_id: str, image: str) -> str:
        """What a deployment of this image would run: the reference pinned by digest, where one is known.

        Raises:
            InvalidRequest: It is not a reference, or there is no such artifact.
        """
        return await self._needs.pin(project_id, image)

    async def last_failure(self, deployment: Deployment) -> Revision | None:
        """The newest revision that did not get ready: the active one, or one after it that was rolled back."""
        return await self._database.read(revisions.last_failure, deployment)

    async def rollback(self, project_id: str, name_or_id: str, number_or_id: str) -> Deployment:
        """Run an earlier revision again; the number of replicas and all else that is no part of it stay.

        Raises:
            NotFound: No such deployment, or a revision that is not kept.
            InvalidRequest: Its artifact, or a secret that it names, does not exist any longer.
            ChangedMeanwhile: Others changed the deployment at the same time, again and again.
        """
        revision = await self.get_revision(project_id, name_or_id, number_or_id)
        await self._needs.check_secrets(project_id, revision.config)
        return await self._retried(lambda: self._go_back(project_id, name_or_id, revision))

    async def give_up(self, deployment: Deployment, failure: RevisionFailure) -> Deployment | None:
        """Note that the active revision does not get ready; where that is wanted, go back to the last one that did.

        Both are on disk together: whoever reads of the failure sees what became of it.

        Returns what then is, or None where the revision is the active one still.

        Raises:
            InvalidRequest, Conflict: The revision to go back to cannot run any longer; the failure is noted.
        """
        this = deployment.id, deployment.revision_id
        revision = await self._database.read(revisions.get, *this)
        if revision is None or revision.failure is not None or revision.ready_at is not None:
            return None  # whoever looks again, each second, does not ask the registry again
        working = None
        if deployment.config.rollback_on_failure:
            working = await self._database.read(revisions.last_that_worked, *this)
        if working is None:
            await self._database.write(revisions.note_failure, *this, failure)
            return None
        try:
            return await self._make_way(deployment, working, failure)
        except ChangedMeanwhile:
            return None  # somebody has taken the matter up
        except (InvalidRequest, Conflict):
            if await self._database.write(revisions.note_failure, *this, failure):
                raise
            return None

    async def _make_way(self, deployment: Deployment, working: Revision, failure: RevisionFailure) -> Deployment | None:
        old = await self._fresh(deployment.project_id, deployment.id)
        if old.revision_id != deployment.revision_id:
            return None
        back = await self._as_it_was(old, working)
        give_up = partial(self._database.write, deployments.give_up, back, old, failure)
        if not await self._checks.sealing(give_up):
            return None
        self.changed()
        return back

    async def _retried(self, change: Callable[[], Awaitable[Deployment]]) -> Deployment:
        """A change that is laid over what others make of the deployment at the same time."""
        for _ in range(UPDATE_TRIES - 1):
            try:
                return await change()
            except ChangedMeanwhile:
                continue
        return await change()

    async def _go_back(self, project_id: str, name_or_id: str, revision: Revision) -> Deployment:
        old = await self._fresh(project_id, name_or_id)
        new = await self._as_it_was(old, revision)
        return await self._put(new, old, "rollback" if revision.id != old.revision_id else None)

    async def _as_it_was(self, deployment: Deployment, revision: Revision) -> Deployment:
        """The deployment with an earlier revision as the active one, which can run here and now."""
        config = rules.with_revision(deployment.config, revision.config)
        self._needs.check_capacity(config)
        await self._needs.pin(deployment.project_id, config.image)
        return msgspec.structs.replace(
            deployment,
            config=config,
            revision_id=revision.id,
            revision_number=revision.number,
            updated_at=self._clock(),
        )

    async def _restart(self, project_id: str, name_or_id: str) -> Deployment:
        old = await self._fresh(project_id, name_or_id)
        new = await self._with_next_revision(msgspec.structs.replace(old, updated_at=self._clock()))
        return await self._put(new, old, "system")

    async def _update(self, project_id: str, name_or_id: str, changes: dict[str, Any]) -> Deployment:
        old = await self._fresh(project_id, name_or_id)
        config = rules.patched(old.config, changes)
        self._needs.check_capacity(config)
        if "environment_variables" in changes:
            await self._needs.check_secrets(project_id, config)
        if "volumes" in changes:
            config = await self._needs.with_volumes(project_id, config, rules.mounted_versions(old.config))
        if config.image != old.config.image:
            config = msgspec.structs.replace(config, image=await self._needs.pin(project_id, config.image))
        now = self._clock()
        new = msgspec.structs.replace(old, config=config, updated_at=now)
        action = None
        if rules.makes_revision(old.config, config):
            action = "update"
            new = await self._with_next_revision(new)
        return await self._put(new, old, action)

    async def _put(self, new: Deployment, old: Deployment, action: str | None) -> Deployment:
        await self._checks.sealing(lambda: self._database.write(deployments.update, new, old, action))
        self.changed()
        return new

    async def _with_next_revision(self, deployment: Deployment) -> Deployment:
        number = await self._database.read(revisions.last_number, deployment.id)
        return msgspec.structs.replace(deployment, revision_id=new_id(), revision_number=number + 1)

    async def _fresh(self, project_id: str, name_or_id: str) -> Deployment:
        self._cache.pop((project_id, name_or_id), None)
        return await self.get(project_id, name_or_id)
