"""Artifacts for deployments: which one an image reference means, and bundles opened for a runtime."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection

from machineshop.blobs.base import Blob, BlobMissing, BlobStore
from machineshop.blobs.layout import algorithm_of
from machineshop.errors import ArtifactMissing, InvalidRequest
from machineshop.runtime.base import ArtifactKind, Bundle
from machineshop.services.manifests import Descriptor, ManifestContent, parse_manifest
from machineshop.services.references import Reference, parse_reference
from machineshop.store import identities, registry_blobs
from machineshop.store import registry as store
from machineshop.store.database import Database
from machineshop.store.registry import REGISTRY_LOCK, Manifest, Repository
from machineshop.store.registry_blobs import StoredBlob

BUNDLE_TYPE = "application/vnd.machineshop.bundle.v1"
BUNDLE_CONFIG_TYPE = "application/vnd.machineshop.bundle.config.v1+json"
BUNDLE_SOURCE_TYPE = "application/vnd.machineshop.bundle.source.v1.tar+gzip"
# A command, some variables and pinned requirements: far below this, and read as a whole.
CONFIG_LIMIT_BYTES = 1024 * 1024
LAYER_LIMIT_BYTES = 512 * 1024 * 1024
DEFAULT_TAG = "latest"

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PORTS = {"http": 80, "https": 443}


class _Found(msgspec.Struct, frozen=True):
    """An artifact in a repository."""

    reference: Reference
    repository: Repository
    manifest: Manifest

    @property
    def fields(self) -> ManifestContent:
        return parse_manifest(self.manifest.content)


class Located(msgspec.Struct, frozen=True):
    """An artifact in a registry that the platform reads."""

    kind: ArtifactKind
    name: str
    """Its repository with the namespace."""
    digest: str


class Artifacts:
    """What was pushed, as deployments see it."""

    def __init__(self, database: Database, blobs: BlobStore, base_url: Callable[[], str]) -> None:
        self._database = database
        self._blobs = blobs
        self._base_url = base_url

    async def resolve(
        self,
        project_id: str,
        image: str,
        *,
        host: str | None = None,
        accepts: frozenset[ArtifactKind] = frozenset(ArtifactKind),
    ) -> str:
        """The reference pinned by digest, `host/namespace/name@sha256:...`, for a deployment of this project.

        Arguments:
            project_id: Whose deployment it is.
            image: The reference as the user gave it.
            host: Another name and port of our registry than those of the base URL.
            accepts: What the runtime can run.

        Raises:
            InvalidRequest: It is not a reference.
            ArtifactMissing: There is no such artifact, or it is of a kind that the runtime does not run.
        """
        found = await self._find(project_id, parse_reference(image), host)
        kind = kind_of(found.fields)
        if kind not in accepts:
            raise not_accepted(image, kind)
        if found.manifest.unneeded_since is not None:  # a deployment is about to need it
            await self._database.write_alone(
                REGISTRY_LOCK, store.touch_manifest, found.repository.id, found.manifest.digest
            )
        return found.reference.pinned(self._own_host(), found.manifest.digest)

    async def locate(self, project_id: str, image: str, *, host: str | None = None) -> Located | None:
        """Which of our artifacts a reference means for this project; None: it is not one of ours.

        Arguments:
            project_id: Whose deployment it is.
            image: The reference.
            host: Another name and port of our registry than those of the base URL.

        Raises:
            InvalidRequest: It is not a reference.
            ArtifactMissing: It names our registry, and this project has no such thing there.
        """
        reference = parse_reference(image)
        found = await self._search(project_id, reference, host)
        if found is not None:
            return Located(kind_of(found.fields), reference.name, found.manifest.digest)
        if self._is_ours(reference.registry, host):
            raise _missing(reference)
        return None

    async def open_bundle(self, project_id: str, image: str) -> Bundle:
        """See `BundleSource`."""
        try:
            reference = parse_reference(image)
        except InvalidRequest as error:
            raise ArtifactMissing(error.message) from None
        found = await self._find(project_id, reference, None)
        fields = found.fields
        if kind_of(fields) is not ArtifactKind.BUNDLE:
            raise not_accepted(image, ArtifactKind.IMAGE)
        config, layer = bundle_parts(image, fields)
        config_bytes = b"".join([chunk async for chunk in await self._open(image, found.repository, config)])
        return Bundle(found.manifest.digest, config_bytes, await self._open(image, found.repository, layer))

    async def _find(self, project_id: str, reference: Reference, host: str | None) -> _Found:
        found = await self._search(project_id, reference, host)
        if found is not None:
            return found
        if self._is_ours(reference.registry, host):
            raise _missing(reference)
        _, organization = await self._database.read(identities.get_project, project_id)
        raise ArtifactMissing(
            f"'{reference}' is not in this platform's registry, which is {self._own_host()}/{organization.slug}/: "
            "push it there, as 'jig deploy' does."
        )

    async def _search(self, project_id: str, reference: Reference, host: str | None) -> _Found | None:
        _, organization = await self._database.read(identities.get_project, project_id)
        ours = self._is_ours(reference.registry, host)
        # A digest means the same bytes everywhere: what is pinned is found also when the platform's address changes.
        if reference.namespace == organization.slug and (ours or reference.digest):
            short = reference.name.partition("/")[2]
            wanted = reference.digest or reference.tag or DEFAULT_TAG
            found = await self._database.read(_find_manifest, organization.id, short, wanted)
            if found is not None:
                return _Found(reference, *found)
        return None

    async def _open(self, image: str, repository: Repository, wanted: Descriptor) -> AsyncIterator[bytes]:
        known = await self._database.read(registry_blobs.find_blob, repository.id, wanted.digest)
        try:
            if known is not None:
                return self._verified(await self._blobs.open(known.key), known, image)
        except BlobMissing:
            pass
        raise ArtifactMissing(f"'{image}' lacks its part {wanted.digest} in the registry: push it again.")

    async def _verified(self, blob: Blob, known: StoredBlob, image: str) -> AsyncIterator[bytes]:
        """A blob's chunks; the end comes only if they have the digest."""
        hasher = hashlib.new(algorithm_of(known.digest))
        async for chunk in blob.chunks():
            await asyncio.to_thread(hasher.update, chunk)
            yield chunk
        if f"{hasher.name}:{hasher.hexdigest()}" != known.digest:
            # Once the damaged bytes are gone, a client that pushes it again hears that they are wanted.
            await self._blobs.delete(known.key)
            damaged = f"The part {known.digest} of '{image}' was damaged on the server's disk: push it again."
            raise ArtifactMissing(damaged)

    def _own_host(self) -> str:
        return urlsplit(self._base_url()).netloc

    def _is_ours(self, registry: str | None, host: str | None) -> bool:
        """Whether a registry is the one that has these names, however it is spelled."""
        scheme = urlsplit(self._base_url()).scheme
        ours = {_endpoint(own, scheme) for own in (self._own_host(), host) if own is not None}
        return registry is not None and _endpoint(registry, scheme) in ours


def _endpoint(host: str, scheme: str) -> tuple[str, int | None]:
    """The same for all spellings of a host and its port: in capitals, without the usual port, by the loopback's names.

    One that is no address and no port either comes back as it is.
    """
    try:
        parts = urlsplit(f"//{host}")
        name, port = parts.hostname or "", parts.port
    except ValueError:
        return host, None
    return "localhost" if name in _LOOPBACK else name, port or _PORTS.get(scheme)


def _find_manifest(
    conn: Connection, organization_id: str, name: str, reference: str
) -> tuple[Repository, Manifest] | None:
    repository = store.find_repository(conn, organization_id, name)
    manifest = None if repository is None else store.find_manifest(conn, repository.id, reference)
    return None if repository is None or manifest is None else (repository, manifest)


def _missing(reference: Reference) -> ArtifactMissing:
    return ArtifactMissing(f"There is no '{reference}' in this registry: push it first, or correct the name.")


def kind_of(fields: ManifestContent) -> ArtifactKind:
    """What a manifest is of."""
    return ArtifactKind.BUNDLE if fields.artifact_type == BUNDLE_TYPE else ArtifactKind.IMAGE


def not_accepted(image: str, kind: ArtifactKind) -> ArtifactMissing:
    """What to say of an artifact of a kind that the runtime does not run."""
    if kind is ArtifactKind.IMAGE:
        return ArtifactMissing(
            f"'{image}' is a container image, and this runtime runs bundles only: deploy the project with "
            "'jig deploy', which makes a bundle, or start the platform with a container runtime."
        )
    return ArtifactMissing(
        f"'{image}' is a bundle, and this runtime runs container images only: build one with 'jig build', "
        "or start the platform with --runtime auto or process."
    )


def bundle_parts(image: str, fields: ManifestContent) -> tuple[Descriptor, Descriptor]:
    """The descriptors of a bundle's configuration and of its files.

    Raises:
        ArtifactMissing: It is no bundle that can be run.
    """
    config, layers = fields.config, fields.layers or ()
    if config is None or config.media_type != BUNDLE_CONFIG_TYPE or config.size > CONFIG_LIMIT_BYTES:
        raise ArtifactMissing(f"'{image}' is a broken bundle: its configuration is no {BUNDLE_CONFIG_TYPE}.")
    if len(layers) != 1 or layers[0].media_type != BUNDLE_SOURCE_TYPE:
        raise ArtifactMissing(f"'{image}' is a broken bundle: its one layer must be a {BUNDLE_SOURCE_TYPE}.")
    if layers[0].size > LAYER_LIMIT_BYTES:
        raise ArtifactMissing(
            f"'{image}' is larger than {LAYER_LIMIT_BYTES} bytes: leave large files out of the project."
        )
    return config, layers[0]
