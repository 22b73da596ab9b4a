"""The routes of the OCI distribution API, version 1.1: each path with its methods."""

from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from machineshop.registry.blobs import BlobRoutes
from machineshop.registry.challenge import TOKEN_PATH
from machineshop.registry.endpoint import Endpoint, Handler, RegistryCall
from machineshop.registry.manifests import ManifestRoutes
from machineshop.registry.referrers import ReferrerRoutes
from machineshop.registry.tags import TagRoutes
from machineshop.registry.tokens import TokenEndpoint
from machineshop.registry.uploads import UploadRoutes
from machineshop.services.audit import AuditLog
from machineshop.services.registry import RegistryService
from machineshop.services.registry_access import RegistryAccess
from machineshop.services.registry_errors import NameUnknown
from machineshop.services.registry_tokens import PUSH


def routes(
    service: RegistryService, access: RegistryAccess, base_url: Callable[[], str], audit: AuditLog | None = None
) -> list[BaseRoute]:
    """Everything under `/v2/`. A name's part may be called `blobs` or `manifests`: the last one in a path counts.

    Args:
        service: What the registry holds.
        access: Who may do what.
        base_url: Where the platform is reached.
        audit: Where changes are recorded.
    """
    blobs, uploads, manifests = BlobRoutes(service), UploadRoutes(service), ManifestRoutes(service)
    tags, referrers = TagRoutes(service), ReferrerRoutes(service)
    # All that is done with uploads is part of a push: to ask how far one is, and to give it up.
    pushing: list[tuple[str, Mapping[str, Handler]]] = [
        ("/v2/{name:path}/blobs/uploads", {"POST": uploads.post}),
        ("/v2/{name:path}/blobs/uploads/", {"POST": uploads.post}),
        (
            "/v2/{name:path}/blobs/uploads/{upload_id}",
            {
                "GET": uploads.get,
                "HEAD": uploads.get,
                "PATCH": uploads.patch,
                "PUT": uploads.put,
                "DELETE": uploads.delete,
            },
        ),
    ]
    others: list[tuple[str, Mapping[str, Handler]]] = [
        ("/v2", {"GET": _base, "HEAD": _base}),
        ("/v2/", {"GET": _base, "HEAD": _base}),
        ("/v2/{name:path}/blobs/{digest}", {"HEAD": blobs.head, "GET": blobs.get, "DELETE": blobs.delete}),
        (
            "/v2/{name:path}/manifests/{reference}",
            {"HEAD": manifests.get, "GET": manifests.get, "PUT": manifests.put, "DELETE": manifests.delete},
        ),
        ("/v2/{name:path}/tags/list", {"GET": tags.get, "HEAD": tags.get}),
        ("/v2/{name:path}/referrers/{digest}", {"GET": referrers.get, "HEAD": referrers.get}),
        ("/v2/{name:path}", dict.fromkeys(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"), _unknown)),
    ]
    return [
        Route(TOKEN_PATH, TokenEndpoint(access)),
        *(Route(path, Endpoint(access, base_url, handlers, PUSH)) for path, handlers in pushing),
        *(Route(path, Endpoint(access, base_url, handlers, audit=audit)) for path, handlers in others),
    ]


async def _base(_call: RegistryCall) -> Response:
    """Yes, a registry is here, and the key is good."""
    return Response(b"{}", media_type="application/json")


async def _unknown(call: RegistryCall) -> Response:
    raise NameUnknown(name=call.name[:255], namespace=call.organization.slug)
