"""Manifests: `/v2/<name>/manifests/<tag or digest>`."""

from starlette.responses import Response

from machineshop.registry.endpoint import RegistryCall
from machineshop.services.registry import RegistryService

# What the specification asks registries to take at least, and others take at most.
MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024


class ManifestRoutes:
    """Push, pull and delete manifests."""

    def __init__(self, service: RegistryService) -> None:
        self._service = service

    async def put(self, call: RegistryCall) -> Response:
        """Keep the body under its digest, and under the tag if the reference is one."""
        content = await call.body(MANIFEST_LIMIT_BYTES)
        manifest, call.has_changed = await self._service.put_manifest(
            call.organization, call.name, call.path["reference"], content, call.headers.get("content-type")
        )
        headers = {
            "Location": f"/v2/{call.name}/manifests/{manifest.digest}",
            "Docker-Content-Digest": manifest.digest,
        }
        if manifest.subject is not None:
            headers["OCI-Subject"] = manifest.subject
        return Response(status_code=201, headers=headers)

    async def get(self, call: RegistryCall) -> Response:
        """The manifest as it was pushed; the server leaves the body out for HEAD."""
        manifest = await self._service.manifest(call.organization, call.name, call.path["reference"])
        headers = {
            "Content-Type": manifest.media_type,
            "Docker-Content-Digest": manifest.digest,
            "ETag": f'"{manifest.digest}"',
        }
        return Response(manifest.content, headers=headers)

    async def delete(self, call: RegistryCall) -> Response:
        """Remove a tag, or a manifest with all its tags."""
        await self._service.delete_manifest(call.organization, call.name, call.path["reference"])
        return Response(status_code=202)
