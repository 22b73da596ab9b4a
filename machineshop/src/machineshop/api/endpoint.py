"""What every API route shares: authenticate, check the scope, read and decode the body, call, answer, map errors.

A resource's module lists its routes with `Api.route`; its handlers take a `Call` and return a `Response`.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from machineshop.api.operation import DescribedRoute, Operation
from machineshop.api.shape import check_shape
from machineshop.bodies import read_body
from machineshop.errors import (
    InvalidRequest,
    MachineshopError,
    MalformedBody,
    NotPermitted,
)
from machineshop.http import USER_SCOPES, VIEWER_SCOPES, JsonResponse, address_of, bearer_token, error_response
from machineshop.models import Identity, Scope
from machineshop.services.audit import AuditLog, Values
from machineshop.services.identity import IdentityService
from machineshop.services.malformed import malformed

log = logging.getLogger(__name__)

T = TypeVar("T")

# A deployment's configuration or a job is far below this; files go through the storage routes.
BODY_LIMIT_BYTES = 2 * 1024 * 1024
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


class Change(NamedTuple):
    """What a handler has changed."""

    subject: str
    before: Values | None
    after: Values | None


class Call:
    """One authenticated request with its decoded body."""

    __slots__ = ("_keys", "_receive", "_request", "_scope", "body", "change", "identity")

    def __init__(
        self, scope: AsgiScope, receive: Receive, identity: Identity, body: Any, keys: IdentityService
    ) -> None:
        self._keys = keys
        self._scope = scope
        self._receive = receive
        self._request: Request | None = None
        self.identity = identity
        self.body = body
        self.change: Change | None = None

    def changed(self, subject: str, *, before: Values | None = None, after: Values | None = None) -> None:
        """Tell what the handler has changed, for the record.

        Args:
            subject: The thing's name or id.
            before: What it was, without secrets; None for a new one.
            after: What it is; None for one that is gone.
        """
        self.change = Change(subject, before, after)

    def answer_at_once(self, response: JsonResponse) -> bool:
        """Send what the handler will return before it does, where that can be done in one call; whether it was."""
        return response.send_at_once(self._scope)

    @property
    def request(self) -> Request:
        """The request itself, which most jobs' submits do without."""
        if self._request is None:
            self._request = Request(self._scope, self._receive)
        return self._request

    @property
    def project_id(self) -> str:
        """The project that the key belongs to."""
        return self.identity.project.id

    @property
    def path(self) -> dict[str, str]:
        """The values of the placeholders in the route's path."""
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

    def required(self, name: str) -> str:
        """A query parameter that must be there.

        Raises:
            InvalidRequest: It is missing or empty.
        """
        value = self.query.get(name)
        if not value:
            raise InvalidRequest(f"The query parameter '{name}' is missing.", param=name)
        return value

    async def read(self, limit_bytes: int, mend: str) -> bytes:
        """The body as it is, of a route that takes no JSON; arguments and errors are those of `read_body`."""
        return await read_body(self._scope, self._receive, limit_bytes, self.project_id, mend=mend)

    async def while_key_holds(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The pieces of an answer that goes on for hours: none comes any more once the caller's key has ended."""
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if not await self._keys.still_holds(self.identity):
                    return
                yield piece

    async def disconnected(self) -> None:
        """Return once the client has closed the connection; the body must have been read."""
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


Handler = Callable[[Call], Awaitable[Response]]


class Api:
    """Makes routes that share one way to authenticate, and one record of changes."""

    def __init__(self, identity: IdentityService, audit: AuditLog | None = None) -> None:
        self._identity = identity
        self._audit = audit

    def route(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        scopes: Sequence[Scope] | None = None,
        body: Any = None,
        body_limit_bytes: int = BODY_LIMIT_BYTES,
        action: str | None = None,
        operation: Operation | None = None,
    ) -> DescribedRoute:
        """One route.

        Args:
            method: The HTTP method.
            path: The path, with its placeholders.
            handler: What answers.
            scopes: Whose keys may; None: those that may look for a GET, those that may change things otherwise.
            body: The msgspec type of its JSON body; None where the handler reads the body itself.
            body_limit_bytes: How large that may be.
            action: What the record calls the change that it makes, as `deployment.update`; None: it makes none.
            operation: What the description of the API says of it.
        """
        scopes = scopes or (VIEWER_SCOPES if method == "GET" else USER_SCOPES)
        endpoint = Endpoint(handler, self._identity, frozenset(scopes), body, body_limit_bytes, self._audit, action)
        return DescribedRoute(method, path, endpoint, operation, scopes, body)


class Endpoint:
    """The ASGI application of one route."""

    def __init__(
        self,
        handler: Handler,
        identity: IdentityService,
        scopes: frozenset[Scope],
        body: Any,
        body_limit_bytes: int,
        audit: AuditLog | None = None,
        action: str | None = None,
    ) -> None:
        self._handler = handler
        self._audit = audit
        self.action = action
        self._identity = identity
        self.scopes = scopes
        self._decoder: msgspec.json.Decoder[Any] | None = None if body is None else msgspec.json.Decoder(body)
        self._body_limit_bytes = body_limit_bytes

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever goes wrong is an answer too."""
        try:
            response = await self._answer(scope, receive)
        except ClientDisconnect:
            return
        except MachineshopError as error:
            response = error_response(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("api.defect method=%s path=%s", scope["method"], scope["path"])
            response = error_response(MachineshopError())
        await response(scope, receive, send)

    async def _answer(self, scope: AsgiScope, receive: Receive) -> Response:
        identity = await self._identity.authenticate(bearer_token(scope), address_of(scope))
        if identity.key.scope not in self.scopes:
            raise NotPermitted(needed=" or ".join(sorted(self.scopes)), scope=identity.key.scope)
        body = None
        if self._decoder is not None:
            whole = await read_body(scope, receive, self._body_limit_bytes, identity.project.id)
            body = decode(whole, self._decoder)
        call = Call(scope, receive, identity, body, self._identity)
        response = await self._handler(call)
        if self.action is not None and call.change is not None and self._audit is not None:
            await self._audit.record(identity, address_of(scope), self.action, *call.change)
        return response


def decode(body: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """The typed body.

    Raises:
        MalformedBody: It is not JSON, or a field is missing or has the wrong type; `param` names the field.
    """
    try:
        check_shape(body)
        body.decode()  # a field that is kept as it came would be skipped over, whatever its bytes are
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _in_array(body, decoder) or malformed(error, body, decoder) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The request body is not valid JSON: {error}.") from None
    except RecursionError:
        raise MalformedBody("The request body is nested too deeply; flatten it, or send it as a file.") from None


def _in_array(body: bytes, decoder: "msgspec.json.Decoder[T]") -> MalformedBody | None:
    """Which of the things in an array is wrong, where the route takes one such thing as well."""
    if not body.lstrip().startswith(b"["):
        return None
    for number, item in enumerate(_ARRAY.decode(body)):
        try:
            decoder.decode(item)
        except msgspec.ValidationError as error:
            return malformed(error, bytes(item), decoder, f"[{number}]")
    return None


def iso(seconds: float | None) -> str | None:
    """A time for the wire: ISO 8601 in UTC with microseconds."""
    if seconds is None:
        return None
    second, microseconds = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_iso_second(second)}.{microseconds:06d}Z"


@lru_cache(256)  # most times on their way out are of the last few seconds
def _iso_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")
