"""Images that deployments name: the platform's own, which are in its registry, and others, which are elsewhere.

Place in the flow: a deployment's reference is resolved here; the runtime asks here for leave to pull what is ours.
"""

from collections.abc import Awaitable, Callable

from machineshop.errors import ArtifactMissing, InvalidRequest
from machineshop.runtime.base import ArtifactKind, PullGrant
from machineshop.services.artifacts import not_accepted
from machineshop.services.references import parse_reference
from machineshop.services.registry import RegistryService
from machineshop.services.registry_access import RegistryAccess

KINDS_LIMIT = 10_000
ENGINES_OWN_NAMES = ("sha256", "sha512")
"""An engine takes `sha256:<hex>` for the id of any image that it has, whoever's it is."""


class Images:
    """What a reference in a deployment means.

    Args:
        registry: Where our own are.
        access: Makes tokens for pulling.
        pin: Puts the digest to a reference that is not ours, where the runtime knows it.
        registry_host: Asked for the host and port at which the runtime's engine reaches the registry.
    """

    def __init__(
        self,
        registry: RegistryService,
        access: RegistryAccess,
        pin: Callable[[str], Awaitable[str]],
        registry_host: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._access = access
        self._pin = pin
        self._registry_host = registry_host
        self._kinds: dict[tuple[str, str], ArtifactKind] = {}

    async def resolve(self, project_id: str, image: str, *, accepts: frozenset[ArtifactKind]) -> str:
        """The reference pinned by digest, where one is known.

        Raises:
            InvalidRequest: It is not a reference.
            ArtifactMissing: It should be in our registry and is not, or is of a kind that nothing here runs.
        """
        located = None if ArtifactKind.IMAGE not in accepts else await self._registry.locate(project_id, image)
        if ArtifactKind.IMAGE not in accepts or located is not None:
            return await self._registry.resolve(project_id, image, accepts=accepts)
        reference = parse_reference(image)
        if reference.registry is None and reference.name in ENGINES_OWN_NAMES:
            raise InvalidRequest(
                f"'{image[:512]}' is an image's id, which says nothing of where it comes from: give it a name "
                "(docker tag) and deploy that.",
                param="image",
            )
        return await self._pin(image)

    async def kind_of(self, project_id: str, image: str, accepts: frozenset[ArtifactKind]) -> ArtifactKind:
        """What a deployment's pinned reference means; where that is gone, what is most often meant."""
        known = self._kinds.get((project_id, image))
        if known is not None:
            return known
        try:
            located = await self._registry.locate(project_id, image)
        except (ArtifactMissing, InvalidRequest):
            return ArtifactKind.BUNDLE if ArtifactKind.BUNDLE in accepts else ArtifactKind.IMAGE
        kind = ArtifactKind.IMAGE if located is None else located.kind
        if len(self._kinds) >= KINDS_LIMIT:
            self._kinds.clear()
        if located is not None:  # somebody may push tomorrow what is not ours today
            self._kinds[project_id, image] = kind
        return kind

    async def grant_pull(self, project_id: str, image: str) -> PullGrant | None:
        """See `ImageSource`."""
        located = await self._registry.locate(project_id, image)
        if located is None:
            return None
        if located.kind is ArtifactKind.BUNDLE:
            raise not_accepted(image, ArtifactKind.BUNDLE)
        token = await self._access.issue_pull(project_id, located.name)
        return PullGrant(f"{self._registry_host()}/{located.name}@{located.digest}", token)
