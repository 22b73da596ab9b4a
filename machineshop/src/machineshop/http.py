"""What the ways in by HTTP share: who asks, and how errors are answered; bodies are read by `bodies.py`."""

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from machineshop.errors import BodyTooSlow, MachineshopError, MethodNotAllowed, status_of
from machineshop.models import Scope
from machineshop.shortcut import shortcut_of

ADMIN_SCOPES = (Scope.ADMIN,)
# Those that may change things.
USER_SCOPES = (Scope.ADMIN, Scope.DEVELOPER)
# Those that may look at things.
VIEWER_SCOPES = (Scope.ADMIN, Scope.DEVELOPER, Scope.VIEWER)
# Those that may work jobs.
WORK_SCOPES = (Scope.ADMIN, Scope.DEVELOPER, Scope.WORKER)
ANY_SCOPE = tuple(Scope)


def address_of(scope: AsgiScope) -> str:
    """Where a request comes from: what is at the other end of the connection, whatever its headers say."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def bearer_token(scope: AsgiScope) -> str | None:
    """The API key of a request, or None."""
    kind, token = "", ""
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            break
    return token.strip() or None if kind.lower() == "bearer" else None


class JsonResponse(Response):
    """An answer of JSON text. It takes its headers as they go out, as every job pays for each of its answers."""

    def __init__(self, body: bytes, status: int, headers: dict[str, str] | None) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        if headers:
            self.raw_headers += [(name.lower().encode("latin-1"), headers[name].encode("latin-1")) for name in headers]
        self._is_plain = status == 200 and not headers
        self._is_sent = False

    def send_at_once(self, scope: AsgiScope) -> bool:
        """Send it by the connection's shortcut, where that can: then returning it from the handler sends nothing."""
        shortcut = shortcut_of(scope) if self._is_plain else None
        self._is_sent = shortcut is not None and shortcut.answer(scope, bytes(self.body))
        return self._is_sent

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Send it."""
        if not self._is_sent and not self.send_at_once(scope):
            await super().__call__(scope, receive, send)


def json_response(data: object, status: int = 200, headers: dict[str, str] | None = None) -> JsonResponse:
    """`data` as JSON."""
    return JsonResponse(msgspec.json.encode(data), status, headers)


def error_response(error: MachineshopError) -> Response:
    """The answer for an error: the four fields under `error`, and beside it for the queue's older clients."""
    status, kind = status_of(error)
    fields = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    headers = {}
    if error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 409:
        headers["x-should-retry"] = "false"  # clients retry a 409 otherwise, and ours are answers
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.facts["allowed"]
    if isinstance(error, BodyTooSlow):
        headers["Connection"] = "close"  # the rest of the body may still come, and is no request
    return json_response({"error": fields, **fields}, status, headers)
