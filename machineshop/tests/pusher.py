"""A small client of the OCI distribution API, and the artifacts that tests push with it."""

import hashlib
from typing import Any

import httpx
import msgspec

OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
BUNDLE = "application/vnd.machineshop.bundle.v1"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def descriptor(content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **more}


def image_manifest(config: bytes, *layers: bytes, **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers],
        **more,
    }


def bundle_manifest(config: bytes, *layers: bytes, **more: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "artifactType": BUNDLE,
        "config": descriptor(config, "application/vnd.machineshop.bundle.config.v1+json"),
        "layers": [descriptor(layer, "application/vnd.machineshop.bundle.source.v1.tar+gzip") for layer in layers],
        **more,
    }


class Pusher:
    """Pushes into repositories; every step must succeed."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def start(self, name: str) -> str:
        """Begin an upload; returns its URL."""
        answer = await self.client.post(f"/v2/{name}/blobs/uploads/")
        assert answer.status_code == 202, answer.text
        location: str = answer.headers["location"]
        return location

    async def blob(self, name: str, content: bytes) -> str:
        location = await self.start(name)
        answer = await self.client.put(location, params={"digest": digest_of(content)}, content=content)
        assert answer.status_code == 201, answer.text
        return digest_of(content)

    async def manifest(self, name: str, reference: str, manifest: dict[str, Any]) -> str:
        """Push a manifest under a tag; returns its digest."""
        answer = await self.put_manifest(name, reference, msgspec.json.encode(manifest), manifest["mediaType"])
        assert answer.status_code == 201, answer.text
        return str(answer.headers["docker-content-digest"])

    async def put_manifest(self, name: str, reference: str, content: bytes, media_type: str) -> httpx.Response:
        return await self.client.put(
            f"/v2/{name}/manifests/{reference}", content=content, headers={"Content-Type": media_type}
        )

    async def image(self, name: str, tag: str, config: bytes = b"{}", *layers: bytes, **more: Any) -> str:
        """Push an image; returns its manifest's digest."""
        for content in (config, *layers):
            await self.blob(name, content)
        return await self.manifest(name, tag, image_manifest(config, *layers, **more))

    async def bundle(self, name: str, tag: str, config: bytes = b'{"version": 1}', *layers: bytes) -> str:
        """Push a bundle; returns its manifest's digest."""
        for content in (config, *layers):
            await self.blob(name, content)
        return await self.manifest(name, tag, bundle_manifest(config, *layers))


def code_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error in the specification's form."""
    return answer.status_code, answer.json()["errors"][0]["code"]
