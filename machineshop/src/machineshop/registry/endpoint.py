"""What every route of the registry shares: who asks, what they may do, the errors in the specification's form."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from machineshop.bodies import read_body
from machineshop.errors import MachineshopError, NotPermitted
from machineshop.http import address_of
from machineshop.models import Organization
from machineshop.registry.challenge import origin_of, token_challenge
from machineshop.registry.credentials import credential
from machineshop.registry.errors import error_response
from machineshop.services.audit import AuditLog
from machineshop.services.registry_access import RegistryAccess, Visitor
from machineshop.services.registry_errors import ScopeInsufficient, Unsupported
from machineshop.services.registry_tokens import ACTIONS_OF_KEYS, DELETE, PULL, PUSH

log = logging.getLogger(__name__)

# What the record calls a manifest that is put, and a tag, manifest or blob that is removed.
RECORDED = {"PUT": "image.push", "DELETE": "image.delete"}
ACTIONS_OF_METHODS = {"GET": PULL, "HEAD": PULL, "POST": PUSH, "PUT": PUSH, "PATCH": PUSH, "DELETE": DELETE}


class RegistryCall:
    """One authenticated request to the registry."""

    __slots__ = ("has_changed", "request", "visitor")

    def __init__(self, request: Request, visitor: Visitor) -> None:
        self.request = request
        self.visitor = visitor
        self.has_changed = True
        """Whether what was asked for was not so before; what was is not recorded."""

    @property
    def organization(self) -> Organization:
        """Whose namespace the request may use."""
        return self.visitor.identity.organization

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

    def check(self, action: str) -> None:
        """Refuse what the caller's key, or its token, does not cover.

        What lies outside of the organization's own namespace is left to those who look for it, and do not find it.

        Raises:
            NotPermitted: The key may not do that anywhere.
            ScopeInsufficient: The token may not do it in this repository.
        """
        scope = self.visitor.identity.key.scope
        if action not in ACTIONS_OF_KEYS[scope]:
            may = sorted(each for each, actions in ACTIONS_OF_KEYS.items() if action in actions)
            raise NotPermitted(needed=" or ".join(may), scope=scope)
        name = self.path.get("name")
        if name is not None and name.startswith(f"{self.organization.slug}/") and not self.visitor.may(name, action):
            raise ScopeInsufficient(action=action, name=name[:255])

    async def body(self, limit_bytes: int) -> bytes:
        """The whole body.

        Raises:
            PayloadTooLarge: It is longer than `limit_bytes`.
            BodyTooSlow: Nothing of it came for too long.
            ClientDisconnect: The caller hung up before the end of it.
        """
        return await read_body(
            self.request.scope,
            self.request.receive,
            limit_bytes,
            self.visitor.identity.project.id,
            "The manifest",
            "Put what is large into a blob.",
        )


Handler = Callable[[RegistryCall], Awaitable[Response]]


class Endpoint:
    """The ASGI application of one path.

    Args:
        access: Who may do what.
        base_url: Where the platform is reached, for all that it knows.
        handlers: One for each method.
        action: What all of them are part of; None: their methods say it.
        audit: Where changes of what the registry holds are recorded.
    """

    def __init__(
        self,
        access: RegistryAccess,
        base_url: Callable[[], str],
        handlers: Mapping[str, Handler],
        action: str | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._audit = audit
        self._access = access
        self._base_url = base_url
        self._handlers = handlers
        self._action = action

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except MachineshopError as error:
            response = error_response(error)
            if response.status_code == 401:
                response.headers["WWW-Authenticate"] = self._challenge(request, error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("registry.defect method=%s path=%s", request.method, request.url.path)
            response = error_response(MachineshopError())
        response.headers["Docker-Distribution-API-Version"] = "registry/2.0"  # older clients look for it
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        visitor = await self._access.authenticate(credential(request.headers), address_of(request.scope))
        handler = self._handlers.get(request.method)
        if handler is None:
            raise Unsupported(method=request.method, allowed=sorted(self._handlers))
        call = RegistryCall(request, visitor)
        call.check(self._needed(request))
        response = await handler(call)
        is_recorded = request.method in RECORDED and call.has_changed
        if self._audit is not None and is_recorded and response.status_code < 300:
            subject = _subject(call)
            await self._audit.record(visitor.identity, address_of(request.scope), RECORDED[request.method], subject)
        return response

    def _needed(self, request: Request) -> str:
        return self._action or ACTIONS_OF_METHODS.get(request.method, PULL)

    def _challenge(self, request: Request, error: MachineshopError) -> str:
        return token_challenge(
            origin_of(request.scope["scheme"], request.headers, self._base_url()),
            request.path_params.get("name"),
            self._needed(request),
            insufficient=isinstance(error, ScopeInsufficient),
        )


def _subject(call: RegistryCall) -> str:
    reference = call.path.get("reference") or call.path.get("digest") or ""
    return f"{call.name}{'@' if ':' in reference else ':'}{reference}"
