"""Tokens: `/v2/token` gives one for an API key, to clients of both kinds that are about (GET, and OAuth2's POST)."""

from datetime import UTC, datetime
from urllib.parse import parse_qs

import msgspec
from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from machineshop.bodies import read_body
from machineshop.errors import MachineshopError
from machineshop.http import address_of
from machineshop.registry.challenge import KEY_CHALLENGE
from machineshop.registry.credentials import credential
from machineshop.registry.errors import error_response
from machineshop.services.registry_access import RegistryAccess
from machineshop.services.registry_errors import GrantUnsupported, Unsupported
from machineshop.services.registry_tokens import LIFETIME_SECONDS

METHODS = ("GET", "POST")
# A key, and the names of some repositories.
FORM_LIMIT_BYTES = 64 * 1024


class TokenEndpoint:
    """The ASGI application of the token's path."""

    def __init__(self, access: RegistryAccess) -> None:
        self._access = access

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
                response.headers["WWW-Authenticate"] = KEY_CHALLENGE
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method not in METHODS:
            raise Unsupported(method=request.method, allowed=METHODS)
        if request.method == "GET":
            key, scopes = _asked_by_get(request.headers, request.query_params)
        else:
            key, scopes = _asked_by_post(
                request.headers, await read_body(request.scope, request.receive, FORM_LIMIT_BYTES, whose="")
            )
        token = await self._access.issue(key, scopes, address_of(request.scope))
        answer = {
            "token": token,
            "access_token": token,
            "expires_in": LIFETIME_SECONDS,
            "issued_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        return Response(
            msgspec.json.encode(answer), headers={"Cache-Control": "no-store"}, media_type="application/json"
        )


def _asked_by_get(headers: Headers, query: QueryParams) -> tuple[str | None, list[str]]:
    return credential(headers), query.getlist("scope")


def _asked_by_post(headers: Headers, body: bytes) -> tuple[str | None, list[str]]:
    form = parse_qs(body.decode(errors="replace"))
    kind = form.get("grant_type", ["password"])[0]
    if kind != "password":
        raise GrantUnsupported(kind=kind[:100])
    return form.get("password", [credential(headers)])[0], form.get("scope", [])
