"""Repositories of images and bundles as clients list them: `/v1/image-repositories`."""

from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.described import images as described
from machineshop.api.endpoint import Api, Call
from machineshop.errors import NotFound
from machineshop.http import json_response
from machineshop.services.outside_registry import OutsideRegistry
from machineshop.services.references import is_name
from machineshop.services.registry import RegistryService
from machineshop.services.registry_errors import NameInvalid, NameUnknown

# How clients write the slash of a repository's name in an id; no name holds three underscores in a row.
SLASH = "___"


def routes(api: Api, service: RegistryService, outside: OutsideRegistry | None = None) -> list[Route]:
    """The routes of image repositories, in our registry or in one that others run."""
    images = ImageRoutes(service) if outside is None else OutsideImageRoutes(outside)
    return [
        api.route("GET", "/v1/image-repositories/base-path", images.base_path, operation=described.BASE_PATH),
        api.route("GET", "/v1/image-repositories", images.list_repositories, operation=described.REPOSITORIES),
        api.route("GET", "/v1/image-repositories/{id}/images", images.list_images, operation=described.IMAGES),
    ]


class ImageRoutes:
    """Where to push, and what is there."""

    def __init__(self, service: RegistryService) -> None:
        self._service = service

    async def base_path(self, call: Call) -> Response:
        """The registry and the namespace, at the address by which the client reached us."""
        return json_response({"base-path": f"{_origin(call)}/{call.identity.organization.slug}"})

    async def list_repositories(self, call: Call) -> Response:
        """The organization's repositories."""
        organization = call.identity.organization
        names = [f"{organization.slug}/{each.name}" for each in await self._service.repositories(organization)]
        data = [
            {"object": "image-repository", "id": name.replace("/", SLASH), "url": f"{_host(call)}/{name}"}
            for name in names
        ]
        return json_response({"object": "list", "data": data})

    async def list_images(self, call: Call) -> Response:
        """A repository's tags; the id may come with or without the namespace."""
        organization = call.identity.organization
        name = call.path["id"].replace(SLASH, "/")
        if not name.startswith(f"{organization.slug}/"):
            name = f"{organization.slug}/{name}"
        try:
            tags = await self._service.tags(organization, name)
        except (NameInvalid, NameUnknown):
            raise NotFound(what="image repository", id=call.path["id"][:255]) from None
        data = [{"object": "image", "tag": tag, "url": f"{_host(call)}/{name}:{tag}"} for tag in tags]
        return json_response({"object": "list", "data": data})


class OutsideImageRoutes:
    """The same of a registry that others run. What repositories there are is theirs to say."""

    def __init__(self, registry: OutsideRegistry) -> None:
        self._registry = registry

    async def base_path(self, call: Call) -> Response:
        """The registry and the organization's namespace there, and that our keys are nothing to it."""
        base_path = self._registry.base_path(call.identity.organization.slug)
        return json_response({"base-path": base_path, "outside": True})

    async def list_repositories(self, _call: Call) -> Response:
        """None that we know."""
        return json_response({"object": "list", "data": []})

    async def list_images(self, call: Call) -> Response:
        """A repository's tags; the id may come with or without the namespace."""
        slug, name = call.identity.organization.slug, call.path["id"].replace(SLASH, "/")
        base = urlsplit(self._registry.base_path(slug))
        short = name.removeprefix(f"{base.path.strip('/')}/")
        if not is_name(short):
            raise NotFound(what="image repository", id=call.path["id"][:255])
        url = f"{base.netloc}{base.path}/{short}"
        tags = await self._registry.tags(slug, short)
        return json_response(
            {"object": "list", "data": [{"object": "image", "tag": tag, "url": f"{url}:{tag}"} for tag in tags]}
        )


def _origin(call: Call) -> str:
    return str(call.request.base_url).rstrip("/")


def _host(call: Call) -> str:
    return urlsplit(_origin(call)).netloc
