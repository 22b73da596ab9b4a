"""Referrers: `/v2/<name>/referrers/<digest>`, the manifests that say something about another one."""

import msgspec
from starlette.responses import Response

from machineshop.registry.endpoint import RegistryCall
from machineshop.services.manifests import OCI_INDEX
from machineshop.services.registry import RegistryService


class ReferrerRoutes:
    """List referrers."""

    def __init__(self, service: RegistryService) -> None:
        self._service = service

    async def get(self, call: RegistryCall) -> Response:
        """Their descriptors as an index, perhaps only those of one artifact type."""
        artifact_type = call.query.get("artifactType") or None
        descriptors = await self._service.referrers(call.organization, call.name, call.path["digest"], artifact_type)
        headers = {"Content-Type": OCI_INDEX}
        if artifact_type is not None:
            headers["OCI-Filters-Applied"] = "artifactType"
        body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
        return Response(msgspec.json.encode(body), headers=headers)
