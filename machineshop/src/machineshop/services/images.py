"""Images that deployments name: the platform's own, which are in its registry or the one in its place, and others.

Place in the flow: a deployment's reference is resolved here; the runtime asks here for bundles, and for leave to pull
what is ours.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

from machineshop.errors import ArtifactMissing, InvalidRequest, RegistryAway
from machineshop.runtime.base import ArtifactKind, Bundle, PullGrant
from machineshop.services.artifacts import not_accepted
from machineshop.services.outside_registry import OutsideRegistry
from machineshop.services.references import Reference, parse_reference
from machineshop.services.registry import RegistryService
from machineshop.services.registry_access import RegistryAccess

KINDS_LIMIT = 10_000
AWAY_SECONDS = 5.0
ENGINES_OWN_NAMES = ("sha256", "sha512")
"""An engine takes `sha256:<hex>` for the id of any image that it has, whoever's it is."""
BARE_ID = re.compile("[0-9a-f]{64}")
"""And so it takes the hex digits alone."""


class Images:
    """What a reference in a deployment means.

    Args:
        registry: Where our own are.
        access: Makes tokens for pulling.
        pin: Puts the digest to a reference that is not ours, where the runtime knows it.
        registry_host: Asked for the host and port at which the runtime's engine reaches the registry.
        outside: The registry that others run, where it is used; what lies in ours goes on to be known.
    """

    def __init__(
        self,
        registry: RegistryService,
        access: RegistryAccess,
        pin: Callable[[str], Awaitable[str]],
        registry_host: Callable[[], str],
        outside: OutsideRegistry | None = None,
    ) -> None:
        self._registry = registry
        self._access = access
        self._pin = pin
        self._registry_host = registry_host
        self._outside = outside
        self._kinds: dict[tuple[str, str], ArtifactKind] = {}
        self._lookups: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def resolve(self, project_id: str, image: str, *, accepts: frozenset[ArtifactKind]) -> str:
        """The reference pinned by digest, where one is known.

        Raises:
            InvalidRequest: It is not a reference.
            ArtifactMissing: It should be in our registry and is not, or is of a kind that nothing here runs.
            RegistryAway: The registry that others run does not answer, or refuses us.
        """
        reference = parse_reference(image)
        if outside := self._outside_of(reference):
            located = await outside.locate(project_id, reference)
            if located.kind not in accepts:
                raise not_accepted(image, located.kind)
            pinned = reference.pinned(outside.host, located.digest)
            self._remember((project_id, pinned), located.kind)
            return pinned
        host = self._registry_host()
        located_here = await self._registry.locate(project_id, image, host=host)
        if located_here is not None:
            return await self._registry.resolve(project_id, image, host=host, accepts=accepts)
        if ArtifactKind.IMAGE not in accepts:
            if self._outside is not None:
                raise await self._outside.not_there(project_id, reference)
            return await self._registry.resolve(project_id, image, accepts=accepts)  # it says where to push
        if reference.registry is None and (reference.name in ENGINES_OWN_NAMES or BARE_ID.fullmatch(reference.name)):
            raise InvalidRequest(
                f"'{image[:512]}' is an image's id, which says nothing of where it comes from: give it a name "
                "(docker tag) and deploy that.",
                param="image",
            )
        return await self._pin(image)

    async def kind_of(self, project_id: str, image: str, accepts: frozenset[ArtifactKind]) -> ArtifactKind | None:
        """What a deployment's pinned reference means; where that is gone, what is most often meant.

        None: a registry that others run is being asked, and whoever waits for it here would hold up all deployments.
        """
        known = self._kinds.get((project_id, image))
        if known is not None:
            return known
        usual = ArtifactKind.BUNDLE if ArtifactKind.BUNDLE in accepts else ArtifactKind.IMAGE
        try:
            reference = parse_reference(image)
            if outside := self._outside_of(reference):
                if len(accepts) > 1:
                    self._look_up(outside, project_id, image, usual)
                    return None
                return usual
            located = await self._registry.locate(project_id, image, host=self._registry_host())
        except (ArtifactMissing, InvalidRequest):
            return usual
        if located is not None:  # somebody may push tomorrow what is not ours today
            self._remember((project_id, image), located.kind)
        return ArtifactKind.IMAGE if located is None else located.kind

    async def open_bundle(self, project_id: str, image: str) -> Bundle:
        """See `BundleSource`."""
        try:
            reference = parse_reference(image)
        except InvalidRequest as error:
            raise ArtifactMissing(error.message) from None
        if outside := self._outside_of(reference):
            return await outside.open_bundle(project_id, reference)
        return await self._registry.open_bundle(project_id, image)

    async def grant_pull(self, project_id: str, image: str) -> PullGrant | None:
        """See `ImageSource`."""
        reference = parse_reference(image)
        if outside := self._outside_of(reference):
            return await outside.grant_pull(project_id, reference)
        located = await self._registry.locate(project_id, image, host=self._registry_host())
        if located is None:
            return None
        if located.kind is ArtifactKind.BUNDLE:
            raise not_accepted(image, ArtifactKind.BUNDLE)
        token = await self._access.issue_pull(project_id, located.name)
        return PullGrant(f"{self._registry_host()}/{located.name}@{located.digest}", token)

    async def close(self) -> None:
        """Give up what is being asked."""
        tasks = list(self._lookups.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _outside_of(self, reference: Reference) -> OutsideRegistry | None:
        """The registry that others run, where the reference is of it."""
        return self._outside if self._outside is not None and self._outside.has(reference) else None

    def _look_up(self, outside: OutsideRegistry, project_id: str, image: str, usual: ArtifactKind) -> None:
        """Have the kind known the next time."""
        key = (project_id, image)

        async def look() -> None:
            try:
                located = await outside.locate(project_id, parse_reference(image))
            except ArtifactMissing:
                self._remember(key, usual)
            except RegistryAway:
                await asyncio.sleep(AWAY_SECONDS)  # until then nobody asks it again
            else:
                self._remember(key, located.kind)

        if key not in self._lookups:
            self._lookups[key] = task = asyncio.create_task(look(), name=f"kind of {image}")
            task.add_done_callback(lambda _: self._lookups.pop(key, None))

    def _remember(self, key: tuple[str, str], kind: ArtifactKind) -> None:
        if len(self._kinds) >= KINDS_LIMIT:
            self._kinds.clear()
        self._kinds[key] = kind
