"""Tags: `/v2/<name>/tags/list`."""

from urllib.parse import urlencode

import msgspec
from starlette.responses import Response

from machineshop.registry.endpoint import RegistryCall
from machineshop.services.registry import RegistryService
from machineshop.services.registry_errors import PageInvalid


class TagRoutes:
    """List tags."""

    def __init__(self, service: RegistryService) -> None:
        self._service = service

    async def get(self, call: RegistryCall) -> Response:
        """The tags in order; with `n`, so many of them, and a Link to the next ones."""
        limit = _limit(call.query.get("n"))
        more = None if limit is None else limit + 1
        tags = await self._service.tags(call.organization, call.name, call.query.get("last"), more)
        headers = {}
        if limit is not None and len(tags) > limit:
            tags = tags[:limit]
            if tags:
                following = urlencode({"n": limit, "last": tags[-1]})
                headers["Link"] = f'</v2/{call.name}/tags/list?{following}>; rel="next"'
        body = msgspec.json.encode({"name": call.name, "tags": tags})
        return Response(body, headers=headers, media_type="application/json")


def _limit(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise PageInvalid
    return int(text)
