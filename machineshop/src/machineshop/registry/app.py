"""The routes of the OCI distribution API, version 1.1: each path with its methods."""

from collections.abc import Mapping

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from machineshop.registry.blobs import BlobRoutes
from machineshop.registry.endpoint import Endpoint, Handler, RegistryCall
from machineshop.registry.manifests import ManifestRoutes
from machineshop.registry.referrers import ReferrerRoutes
from machineshop.registry.tags import TagRoutes
from machineshop.registry.uploads import UploadRoutes
from machineshop.services.identity import IdentityService
from machineshop.services.registry import RegistryService
from machineshop.services.registry_errors import NameUnknown


def routes(service: RegistryService, identity: IdentityService) -> list[BaseRoute]:
    """Everything under `/v2/`. A name's part may be called `blobs` or `manifests`: the last one in a path counts."""
    blobs, uploads, manifests = BlobRoutes(service), UploadRoutes(service), ManifestRoutes(service)
    tags, referrers = TagRoutes(service), ReferrerRoutes(service)
    one_upload = {"GET": uploads.get, "PATCH": uploads.patch, "PUT": uploads.put, "DELETE": uploads.delete}
    table: list[tuple[str, Mapping[str, Handler]]] = [
        ("/v2", {"GET": _base, "HEAD": _base}),
        ("/v2/", {"GET": _base, "HEAD": _base}),
        ("/v2/{name:path}/blobs/uploads", {"POST": uploads.post}),
        ("/v2/{name:path}/blobs/uploads/", {"POST": uploads.post}),
        ("/v2/{name:path}/blobs/uploads/{upload_id}", one_upload),
        ("/v2/{name:path}/blobs/{digest}", {"HEAD": blobs.head, "GET": blobs.get, "DELETE": blobs.delete}),
        (
            "/v2/{name:path}/manifests/{reference}",
            {"HEAD": manifests.get, "GET": manifests.get, "PUT": manifests.put, "DELETE": manifests.delete},
        ),
        ("/v2/{name:path}/tags/list", {"GET": tags.get}),
        ("/v2/{name:path}/referrers/{digest}", {"GET": referrers.get}),
        ("/v2/{name:path}", dict.fromkeys(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), _unknown)),
    ]
    return [Route(path, Endpoint(identity, handlers), name=f"registry {path}") for path, handlers in table]


async def _base(_call: RegistryCall) -> Response:
    """Yes, a registry is here, and the key is good."""
    return Response(b"{}", media_type="application/json")


async def _unknown(call: RegistryCall) -> Response:
    raise NameUnknown(name=call.name[:255], namespace=call.organization.slug)
