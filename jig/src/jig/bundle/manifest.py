"""The two JSON documents of a bundle: its config blob and its OCI manifest. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT_TYPE = "application/vnd.machineshop.bundle.v1"
CONFIG_TYPE = "application/vnd.machineshop.bundle.config.v1+json"
SOURCE_TYPE = "application/vnd.machineshop.bundle.source.v1.tar+gzip"
BUNDLE_VERSION = 1


@dataclass(frozen=True)
class Blob:
    """Bytes as a registry names them.

    Args:
        media_type: what they are.
        digest: `sha256:...`.
        size_bytes: how many there are.
    """

    media_type: str
    digest: str
    size_bytes: int

    def descriptor(self) -> dict[str, object]:
        """The blob as a manifest refers to it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes}


def config_blob(
    command: Sequence[str], python_version: str, requirements: str, environment: Mapping[str, str]
) -> bytes:
    """The bundle's config: what to run, with which Python and packages, in which environment."""
    return canonical(
        {
            "version": BUNDLE_VERSION,
            "command": list(command),
            "python_version": python_version,
            "requirements": requirements,
            "environment": dict(environment),
        }
    )


def manifest(config: Blob, source: Blob) -> bytes:
    """The manifest over a config and exactly one source layer."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": config.descriptor(),
            "layers": [source.descriptor()],
        }
    )


def blob_of(content: bytes, media_type: str) -> Blob:
    """The name of some bytes."""
    return Blob(media_type, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


def canonical(document: Mapping[str, object]) -> bytes:
    """JSON with sorted keys and no spaces: equal documents are equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
