"""What a deployment's configuration needs to run here: GPUs, secrets, volumes, an artifact; looked for and pinned."""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from machineshop.errors import ArtifactMissing, InvalidRequest, SecretMissing, VolumeUnusable
from machineshop.models import DeploymentConfig
from machineshop.runtime.base import ArtifactKind, Capacity
from machineshop.services import deployment_rules as rules
from machineshop.store import secrets, volumes
from machineshop.store.database import Database


class ArtifactResolver(Protocol):
    """Who knows artifacts: the registry."""

    async def resolve(self, project_id: str, image: str, *, accepts: frozenset[ArtifactKind]) -> str:
        """The reference pinned by digest.

        Raises:
            InvalidRequest: It is not a reference.
            ArtifactMissing: There is no such artifact for this project, or it is of a kind that nothing here runs.
        """
        ...


class DeploymentNeeds:
    """Looks for what configurations need.

    Args:
        database: Has the secrets and the volumes.
        artifacts: Knows the artifacts.
        capacity: What this machine has.
        accepts: The kinds of artifacts that run here.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        artifacts: ArtifactResolver,
        capacity: Callable[[], Capacity],
        accepts: frozenset[ArtifactKind],
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._artifacts = artifacts
        self._capacity = capacity
        self._accepts = accepts
        self._clock = clock

    def check_capacity(self, config: DeploymentConfig) -> None:
        """Refuse what no machine here could ever run.

        Raises:
            InsufficientCapacity: A replica needs more GPUs than there are.
        """
        rules.check_capacity(config, self._capacity().gpus)

    async def check_secrets(self, project_id: str, config: DeploymentConfig) -> None:
        """Refuse to name secrets that are not there; one that goes later is said by the replica that cannot start.

        Raises:
            SecretMissing: There are some that the project does not have.
        """
        variables = rules.secrets_of(config)
        known = await self._database.read(secrets.expiries, project_id, self._clock()) if variables else {}
        if missing := {variable: name for variable, name in variables.items() if name not in known}:
            raise SecretMissing(missing)

    async def with_volumes(
        self, project_id: str, config: DeploymentConfig, mounted: Mapping[str, int]
    ) -> DeploymentConfig:
        """A configuration that says of each volume which one it is, and which version: the newest, unless it is said.

        Args:
            project_id: Whose volumes.
            config: What is asked for.
            mounted: The versions that are mounted already, by the volumes' names: those stay.

        Raises:
            VolumeUnusable: The project has no such volume.
        """
        found = []
        for mount in config.volumes:
            volume = await self._database.read(volumes.get, project_id, mount.name)
            if volume is None:
                raise VolumeUnusable(
                    f"There is no volume '{mount.name}' in this project: make it first, with `jig volumes create`."
                )
            version = mounted.get(volume.name, volume.current_version) if mount.version is None else mount.version
            found.append(msgspec.structs.replace(mount, name=volume.name, version=version, volume_id=volume.id))
        return msgspec.structs.replace(config, volumes=tuple(found))

    async def pin(self, project_id: str, image: str) -> str:
        """What a deployment of this image would run: the reference pinned by digest, where one is known.

        Raises:
            InvalidRequest: It is not a reference, or there is no such artifact.
        """
        try:
            return await self._artifacts.resolve(project_id, image, accepts=self._accepts)
        except ArtifactMissing as error:
            raise InvalidRequest(error.message, param="image") from error
