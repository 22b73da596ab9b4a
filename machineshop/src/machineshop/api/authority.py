"""The certificate of the authority that signed the server's: public, and to be compared by its fingerprint."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from machineshop.api.described.identity import AUTHORITY
from machineshop.api.operation import DescribedRoute
from machineshop.errors import NotFound
from machineshop.http import error_response

PATH = "/v1/tls/ca"


def routes(authority_pem: Callable[[], str | None]) -> list[DescribedRoute]:
    """All routes of this module. They want no key: who asks cannot know yet whom it would give one to."""

    async def authority(_request: Request) -> Response:
        pem = authority_pem()
        if pem is None:
            return error_response(NotFound(what="authority", id="ca", where=" of this server's own"))
        return Response(pem, media_type="application/x-pem-file")

    return [DescribedRoute("GET", PATH, authority, AUTHORITY)]
