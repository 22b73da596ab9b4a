"""The registry: what organizations push and pull, by the nouns of the OCI distribution specification.

Every operation takes the organization first and a repository's full name; a namespace that is not the organization's
own holds nothing, whoever asks. Uploads of blobs are in `services.uploads`, bundles for runtimes in
`services.artifacts`.
"""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from machineshop.blobs import Storage
from machineshop.blobs.base import Blob, BlobMissing
from machineshop.blobs.layout import DEFAULT_ALGORITHM, algorithm_of, is_digest
from machineshop.models import Organization
from machineshop.runtime.base import ArtifactKind, Bundle
from machineshop.services.artifacts import Artifacts, Located
from machineshop.services.manifests import ManifestContent, check_manifest, digest_of, referrer_descriptor
from machineshop.services.references import is_name, is_tag
from machineshop.services.registry_errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    TagInvalid,
)
from machineshop.services.uploads import BlobUploads, check_digest
from machineshop.store import registry as store
from machineshop.store import registry_blobs
from machineshop.store.database import Database
from machineshop.store.registry import REGISTRY_LOCK, Manifest, Repository
from machineshop.store.registry_blobs import StoredBlob

# Repositories are never renamed and never change hands, so what was read of one stays true.
CACHE_LIMIT = 10_000


class RegistryService:
    """Repositories, blobs, manifests, tags and referrers; also the runtimes' source of bundles."""

    def __init__(
        self,
        database: Database,
        storage: Storage,
        base_url: Callable[[], str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._blobs = storage.blobs
        self._clock = clock
        self._repositories: dict[tuple[str, str], Repository] = {}
        self.uploads = BlobUploads(database, storage, clock)
        self._artifacts = Artifacts(database, storage.blobs, base_url)

    # Repositories

    async def repository(self, organization: Organization, name: str) -> Repository:
        """The repository of this full name.

        Raises:
            NameInvalid: It is not a name.
            NameUnknown: There is none, or the namespace is another organization's.
        """
        known, short = self._cached(organization, name)
        if known is not None:
            return known
        found = await self._database.read(store.find_repository, organization.id, short)
        if found is None:
            raise NameUnknown(name=name, namespace=organization.slug)
        return self._cache(found)

    async def ensure_repository(self, organization: Organization, name: str) -> Repository:
        """The repository of this full name, made if need be.

        Raises:
            NameInvalid: It is not a name.
            NameUnknown: The namespace is another organization's.
        """
        known, short = self._cached(organization, name)
        if known is not None:
            return known
        made = await self._database.write_alone(
            REGISTRY_LOCK, store.ensure_repository, organization.id, short, self._clock()
        )
        return self._cache(made)

    async def repositories(self, organization: Organization) -> list[Repository]:
        """The repositories with something in them, by name."""
        return await self._database.read(store.list_repositories, organization.id)

    # Blobs

    async def blob_size(self, organization: Organization, name: str, digest: str) -> int:
        """A blob's size in bytes. Whoever asks counts on it from now on, and need not push it.

        Raises:
            BlobUnknown: The repository has none with this digest, or its bytes are gone.
            DigestInvalid: It is not a digest.
        """
        repository, blob = await self._find_blob(organization, name, digest)
        # Asked of the disk too: a client that hears 'no' pushes the blob again, and a loss is mended.
        if await self._blobs.size(blob.key) != blob.size:
            raise BlobUnknown(name=name, digest=digest)
        if blob.unneeded_since is not None and not await self._database.write_alone(
            REGISTRY_LOCK, registry_blobs.touch_blob, repository.id, digest
        ):
            raise BlobUnknown(name=name, digest=digest)
        return blob.size

    async def open_blob(self, organization: Organization, name: str, digest: str) -> Blob:
        """A blob for reading. Raises as `blob_size` does."""
        _, blob = await self._find_blob(organization, name, digest)
        try:
            return await self._blobs.open(blob.key)
        except BlobMissing:
            raise BlobUnknown(name=name, digest=digest) from None

    async def blob_url(self, organization: Organization, name: str, digest: str) -> str | None:
        """Where a blob may be read for a few minutes without a key; None: here alone. Raises as `blob_size` does."""
        if not self._blobs.signs:
            return None
        _, blob = await self._find_blob(organization, name, digest)
        return await self._blobs.signed_url(blob.key, "application/octet-stream")

    async def delete_blob(self, organization: Organization, name: str, digest: str) -> None:
        """Take a blob out of a repository; the bytes stay for others. Raises as `blob_size` does."""
        repository = await self.repository(organization, name)
        check_digest(digest)
        if not await self._database.write_alone(REGISTRY_LOCK, registry_blobs.remove_blob, repository.id, digest):
            raise BlobUnknown(name=name, digest=digest)

    async def mount_blob(self, organization: Organization, name: str, digest: str, source: str | None) -> bool:
        """Put a blob of another of the organization's repositories (any, without `source`) into this one.

        False: that one does not have it, or is not the organization's; it has to be uploaded.
        """
        repository = await self.ensure_repository(organization, name)
        namespace, _, short = (source or "").partition("/")
        if not is_digest(digest) or (source is not None and namespace != organization.slug):
            return False
        return await self._database.write_alone(
            REGISTRY_LOCK,
            registry_blobs.mount_blob,
            repository.id,
            digest,
            organization.id,
            short or None,
            self._clock(),
        )

    async def _find_blob(self, organization: Organization, name: str, digest: str) -> tuple[Repository, StoredBlob]:
        repository = await self.repository(organization, name)
        check_digest(digest)
        blob = await self._database.read(registry_blobs.find_blob, repository.id, digest)
        if blob is None:
            raise BlobUnknown(name=name, digest=digest)
        return repository, blob

    # Manifests and tags

    async def put_manifest(
        self, organization: Organization, name: str, reference: str, content: bytes, content_type: str | None
    ) -> tuple[Manifest, bool]:
        """Keep a manifest under its digest and, if `reference` is a tag, under that; and whether that changes anything.

        Raises:
            TagInvalid: The reference is neither.
            DigestInvalid: The content has another digest than the reference.
            ManifestInvalid: It is not a manifest that can be kept.
            ManifestBlobUnknown: It refers to something that the repository does not have.
        """
        repository = await self.ensure_repository(organization, name)
        tag = None if ":" in reference else reference
        if tag is not None and not is_tag(tag):
            raise TagInvalid(tag=tag[:200])
        digest = digest_of(content, algorithm_of(reference) if is_digest(reference) else DEFAULT_ALGORITHM)
        if tag is None and reference != digest:
            raise DigestInvalid(message=f"The manifest's digest is {digest}, not '{reference[:200]}'.")
        fields, media_type = check_manifest(content, content_type)
        subject = fields.subject.digest if fields.subject else None
        manifest = Manifest(digest, media_type, content, subject)
        is_new = await self._database.write_alone(
            REGISTRY_LOCK, _put_manifest, repository, name, manifest, fields, tag, self._clock()
        )
        return manifest, is_new

    async def manifest(self, organization: Organization, name: str, reference: str) -> Manifest:
        """The manifest with this tag or digest. Whoever asks counts on it from now on.

        Raises:
            ManifestUnknown: There is none.
        """
        repository = await self.repository(organization, name)
        found = None
        if is_tag(reference) or is_digest(reference):
            found = await self._database.read(store.find_manifest, repository.id, reference)
        if found is None or not await self._touched(repository, found):
            raise ManifestUnknown(name=name, reference=reference[:200])
        return found

    async def _touched(self, repository: Repository, manifest: Manifest) -> bool:
        """Whether a manifest is still there, and stays for another grace period."""
        return manifest.unneeded_since is None or await self._database.write_alone(
            REGISTRY_LOCK, store.touch_manifest, repository.id, manifest.digest
        )

    async def delete_manifest(self, organization: Organization, name: str, reference: str) -> None:
        """Remove a manifest and its tags by its digest, or one tag alone. Raises as `manifest` does."""
        repository = await self.repository(organization, name)
        remove = store.remove_manifest if ":" in reference else store.remove_tag
        if not await self._database.write_alone(REGISTRY_LOCK, remove, repository.id, reference):
            raise ManifestUnknown(name=name, reference=reference[:200])

    async def tags(
        self, organization: Organization, name: str, last: str | None = None, limit: int | None = None
    ) -> list[str]:
        """A repository's tags in order, those after `last`, at most `limit`."""
        repository = await self.repository(organization, name)
        return await self._database.read(store.list_tags, repository.id, last, limit)

    async def referrers(
        self, organization: Organization, name: str, digest: str, artifact_type: str | None = None
    ) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject is this digest, perhaps only those of one artifact type.

        Raises:
            DigestInvalid: It is not a digest.
        """
        check_digest(digest)
        try:
            repository = await self.repository(organization, name)
        except NameUnknown:
            if name.startswith(f"{organization.slug}/"):
                return []  # the specification's word: no referrers are an empty list, never a 404
            raise
        found = await self._database.read(store.list_referrers, repository.id, digest)
        descriptors = [referrer_descriptor(each.content, each.media_type, each.digest) for each in found]
        return [each for each in descriptors if artifact_type in (None, each.get("artifactType"))]

    # What the rest of the platform needs

    async def resolve(
        self,
        project_id: str,
        image: str,
        *,
        host: str | None = None,
        accepts: frozenset[ArtifactKind] = frozenset(ArtifactKind),
    ) -> str:
        """See `Artifacts.resolve`."""
        return await self._artifacts.resolve(project_id, image, host=host, accepts=accepts)

    async def locate(self, project_id: str, image: str, *, host: str | None = None) -> Located | None:
        """See `Artifacts.locate`."""
        return await self._artifacts.locate(project_id, image, host=host)

    async def open_bundle(self, project_id: str, image: str) -> Bundle:
        """See `BundleSource.open_bundle`."""
        return await self._artifacts.open_bundle(project_id, image)

    async def clean(self, now: float) -> int:
        """Give up uploads that nobody went on with; returns how many."""
        return await self.uploads.clean(now)

    def _cached(self, organization: Organization, name: str) -> tuple[Repository | None, str]:
        if not is_name(name):
            raise NameInvalid(name=name[:255])
        namespace, _, short = name.partition("/")
        if namespace != organization.slug or not short:
            raise NameUnknown(name=name, namespace=organization.slug)
        return self._repositories.get((organization.id, short)), short

    def _cache(self, repository: Repository) -> Repository:
        if len(self._repositories) >= CACHE_LIMIT:
            self._repositories.clear()
        self._repositories[repository.organization_id, repository.name] = repository
        return repository


def _put_manifest(
    conn: Connection,
    repository: Repository,
    name: str,
    manifest: Manifest,
    fields: ManifestContent,
    tag: str | None,
    now: float,
) -> bool:
    """Checked and kept in one transaction, so that nothing it refers to goes in between."""
    wanted = {each.digest: each.size for each in fields.blobs}
    sizes = registry_blobs.blob_sizes(conn, repository.id, set(wanted))
    children = {each.digest for each in fields.manifests or ()}
    missing = [*(wanted.keys() - sizes.keys()), *(children - store.known_manifests(conn, repository.id, children))]
    if missing:
        raise ManifestBlobUnknown(name=name, digest=min(missing))
    for digest, size in wanted.items():
        if sizes[digest] != size:
            raise ManifestInvalid(why=f"it says that {digest} has {size} bytes, which has {sizes[digest]}")
    known = store.find_manifest(conn, repository.id, tag or manifest.digest)
    store.put_manifest(conn, repository.id, manifest, wanted.keys() | children, tag, now)
    return known is None or known.digest != manifest.digest
