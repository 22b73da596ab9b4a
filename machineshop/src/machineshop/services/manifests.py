"""What a manifest says, and whether it may be kept. Pure: bytes in, values out."""

import hashlib
from typing import Any

import msgspec

from machineshop.blobs.layout import DEFAULT_ALGORITHM, is_digest
from machineshop.services.registry_errors import ManifestInvalid

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
IMAGES = frozenset({OCI_IMAGE, DOCKER_IMAGE})
INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})


class Descriptor(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How one thing in a registry refers to another."""

    media_type: str
    digest: str
    size: int
    urls: tuple[str, ...] | None = None
    """Where else the bytes are: such a layer need not be in the registry."""


class ManifestContent(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The fields of images' and indexes' manifests that the registry reads."""

    schema_version: int
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None
    manifests: tuple[Descriptor, ...] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The blobs that must be in the repository."""
        config = () if self.config is None else (self.config,)
        return config + tuple(layer for layer in self.layers or () if not layer.urls)

    @property
    def kind(self) -> str | None:
        """What sort of artifact it is, for those who list referrers."""
        return self.artifact_type or (self.config.media_type if self.config else None)


_decoder = msgspec.json.Decoder(ManifestContent)


def digest_of(content: bytes, algorithm: str = DEFAULT_ALGORITHM) -> str:
    """The digest of a manifest's bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def parse_manifest(content: bytes) -> ManifestContent:
    """A manifest's fields.

    Raises:
        ManifestInvalid: It is not JSON, or a field is missing or wrong.
    """
    try:
        return _decoder.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestInvalid(why=str(error)) from None


def check_manifest(content: bytes, content_type: str | None) -> tuple[ManifestContent, str]:
    """A pushed manifest's fields and its media type.

    Arguments:
        content: The manifest.
        content_type: The request's Content-Type; None: the manifest's own word counts.

    Raises:
        ManifestInvalid: It is not a manifest, or not one that can be kept.
    """
    manifest = parse_manifest(content)
    declared = (content_type or "").partition(";")[0].strip() or None
    media_type = declared or manifest.media_type
    if manifest.schema_version != 2:
        raise ManifestInvalid(why=f"its schemaVersion is {manifest.schema_version}, and only 2 is known")
    if manifest.media_type not in (None, media_type):
        raise ManifestInvalid(why=f"it says that it is {manifest.media_type}, the Content-Type says {media_type}")
    if media_type in IMAGES:
        _require(manifest, present=("config", "layers"), absent=("manifests",))
    elif media_type in INDEXES:
        _require(manifest, present=("manifests",), absent=("config", "layers"))
    else:
        raise ManifestInvalid(why=f"its media type is {media_type}; known are {', '.join(sorted(IMAGES | INDEXES))}")
    _check_descriptors(manifest)
    return manifest, media_type


def _require(manifest: ManifestContent, present: tuple[str, ...], absent: tuple[str, ...]) -> None:
    for field in present:
        if getattr(manifest, field) is None:
            raise ManifestInvalid(why=f"'{field}' is missing")
    for field in absent:
        if getattr(manifest, field) is not None:
            raise ManifestInvalid(why=f"it is of a kind that has no '{field}'")


def _check_descriptors(manifest: ManifestContent) -> None:
    subject = () if manifest.subject is None else (manifest.subject,)
    for descriptor in (*manifest.blobs, *(manifest.layers or ()), *(manifest.manifests or ()), *subject):
        if not is_digest(descriptor.digest):
            raise ManifestInvalid(why=f"'{descriptor.digest}' is not a digest")
        if descriptor.size < 0:
            raise ManifestInvalid(why=f"the size of {descriptor.digest} is negative")


def referrer_descriptor(content: bytes, media_type: str, digest: str) -> dict[str, Any]:
    """How a list of referrers shows a manifest."""
    manifest = parse_manifest(content)
    descriptor: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": len(content)}
    if manifest.kind:
        descriptor["artifactType"] = manifest.kind
    if manifest.annotations:
        descriptor["annotations"] = manifest.annotations
    return descriptor
