"""What every route of the registry shares: who asks, what they may do, the errors in the specification's form."""

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from machineshop.errors import MachineshopError, NotPermitted, PayloadTooLarge
from machineshop.models import Identity, Organization, Scope
from machineshop.registry.errors import error_response
from machineshop.services.identity import IdentityService
from machineshop.services.registry_errors import Unsupported

log = logging.getLogger(__name__)

READING_METHODS = frozenset({"GET", "HEAD"})
PUSHING_SCOPES = frozenset({Scope.ADMIN, Scope.PROJECT})


class RegistryCall:
    """One authenticated request to the registry."""

    __slots__ = ("identity", "request")

    def __init__(self, request: Request, identity: Identity) -> None:
        self.request = request
        self.identity = identity

    @property
    def organization(self) -> Organization:
        """Whose namespace the request may use."""
        return self.identity.organization

    @property
    def name(self) -> str:
        """The repository's full name, unchecked."""
        return self.path["name"]

    @property
    def path(self) -> dict[str, str]:
        """The values of the placeholders in the route's path, unchecked."""
        path: dict[str, str] = self.request.path_params
        return path

    @property
    def query(self) -> QueryParams:
        """The query string."""
        return self.request.query_params

    @property
    def headers(self) -> Headers:
        """The request's headers."""
        return self.request.headers

    async def body(self, limit_bytes: int) -> bytes:
        """The whole body.

        Raises:
            PayloadTooLarge: It is longer than `limit_bytes`.
        """
        parts, size = [], 0
        async for part in self.request.stream():
            size += len(part)
            if size > limit_bytes:
                raise PayloadTooLarge(
                    what="The manifest", limit_bytes=limit_bytes, mend="Put what is large into a blob."
                )
            parts.append(part)
        return b"".join(parts)


Handler = Callable[[RegistryCall], Awaitable[Response]]


class Endpoint:
    """The ASGI application of one path: a handler for each method."""

    def __init__(self, identity: IdentityService, handlers: Mapping[str, Handler]) -> None:
        self._identity = identity
        self._handlers = handlers

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except MachineshopError as error:
            response = error_response(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("registry.defect method=%s path=%s", request.method, request.url.path)
            response = error_response(MachineshopError())
        response.headers["Docker-Distribution-API-Version"] = "registry/2.0"  # older clients look for it
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        identity = await self._identity.authenticate(api_key(request.headers))
        handler = self._handlers.get(request.method)
        if handler is None:
            raise Unsupported(method=request.method, allowed=sorted(self._handlers))
        if request.method not in READING_METHODS and identity.key.scope not in PUSHING_SCOPES:
            raise NotPermitted(needed=" or ".join(sorted(PUSHING_SCOPES)), scope=identity.key.scope)
        return await handler(RegistryCall(request, identity))


def api_key(headers: Headers) -> str | None:
    """The API key of a request: as a bearer token, or as the password of any user."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip() or None
    if kind.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return pair.partition(":")[2] or None
