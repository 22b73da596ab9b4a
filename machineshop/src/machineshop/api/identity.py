"""Whose key this is."""

from starlette.responses import Response
from starlette.routing import Route

from machineshop.api.endpoint import Api, Call
from machineshop.http import ANY_SCOPE, json_response


def routes(api: Api) -> list[Route]:
    """All routes of this module."""
    return [api.route("GET", "/v3/whoami", _whoami, scopes=ANY_SCOPE)]


async def _whoami(call: Call) -> Response:
    identity = call.identity
    return json_response(
        {
            "type": "project_api_key",
            "api_key": {"id": identity.key.id, "name": identity.key.name, "scope": identity.key.scope},
            "organization": {"id": identity.organization.id, "name": identity.organization.name},
            "project": {"id": identity.project.id, "name": identity.project.name, "slug": identity.project.slug},
        }
    )
