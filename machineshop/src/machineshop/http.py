"""What the ways in by HTTP share: who asks, reading a body within bounds, and how errors are answered."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from machineshop.errors import (
    BodiesTooMany,
    BodyTooSlow,
    MachineshopError,
    MethodNotAllowed,
    PayloadTooLarge,
    status_of,
)
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
# How long a body that is read whole may stall.
BODY_SILENCE_SECONDS = 60.0
# How long all of it may take: the largest one comes in time at 14 kB/s.
BODY_SECONDS = 600.0
# What of bodies that are on their way may be in memory together: their clients say how long it stays there.
BODIES_LIMIT_BYTES = 256 * 1024 * 1024
# A smaller body is read whatever others send: its connection has as much in memory anyhow.
SMALL_BODY_BYTES = 64 * 1024


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


async def read_body(
    scope: AsgiScope,
    receive: Receive,
    limit_bytes: int,
    what: str = "The request body",
    mend: str = "Upload large inputs as files and send their URLs.",
) -> bytes:
    """The whole body.

    Args:
        scope: Whose it is.
        receive: Where it comes from.
        limit_bytes: How long it may be.
        what: What it is, where it is too long.
        mend: What to do then.

    Raises:
        PayloadTooLarge: It is longer than `limit_bytes`; no more than that was read.
        BodyTooSlow: Nothing of it came for `BODY_SILENCE_SECONDS`, or it was not whole after `BODY_SECONDS`.
        BodiesTooMany: It is no small one, and those that are on their way are `BODIES_LIMIT_BYTES` together.
        ClientDisconnect: The caller hung up before the end of it.
    """
    shortcut = shortcut_of(scope)
    whole = None if shortcut is None else shortcut.whole_body(scope)
    if whole is not None:
        if len(whole) > limit_bytes:
            raise PayloadTooLarge(what=what, limit_bytes=limit_bytes, mend=mend)
        return whole
    parts: list[bytes] = []
    size = 0
    with _on_their_way.one() as held:
        async for part in _pieces(receive):
            size += len(part)
            if size > limit_bytes:
                raise PayloadTooLarge(what=what, limit_bytes=limit_bytes, mend=mend)
            held.grow(size)
            parts.append(part)
        return b"".join(parts)


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    until, more = now() + BODY_SECONDS, True
    while more:
        left_seconds = until - now()
        try:
            async with asyncio.timeout(min(BODY_SILENCE_SECONDS, left_seconds)):
                message = await receive()
        except TimeoutError:
            if left_seconds < BODY_SILENCE_SECONDS:
                raise BodyTooSlow(BODY_SECONDS, whole=True) from None
            raise BodyTooSlow(BODY_SILENCE_SECONDS) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        yield message.get("body", b"")


class BodiesOnTheirWay:
    """How many bytes of bodies that are not whole yet this process has in memory; small ones do not count."""

    def __init__(self) -> None:
        self.size_bytes = 0

    @contextmanager
    def one(self) -> Iterator["BodyOnItsWay"]:
        """One more, until the end of the block."""
        body = BodyOnItsWay(self)
        try:
            yield body
        finally:
            self.size_bytes -= body.counted_bytes


class BodyOnItsWay:
    """One of them."""

    def __init__(self, all_of_them: BodiesOnTheirWay) -> None:
        self._all = all_of_them
        self.counted_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """So much of it has come.

        Raises:
            BodiesTooMany: With it, all of them are more than may be.
        """
        if size_bytes <= SMALL_BODY_BYTES:
            return
        more_bytes = size_bytes - self.counted_bytes
        if self._all.size_bytes + more_bytes > BODIES_LIMIT_BYTES:
            raise BodiesTooMany(BODIES_LIMIT_BYTES)
        self._all.size_bytes += more_bytes
        self.counted_bytes = size_bytes


_on_their_way = BodiesOnTheirWay()


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

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Send it."""
        shortcut = shortcut_of(scope) if self._is_plain else None
        if shortcut is None or not shortcut.answer(scope, bytes(self.body)):
            await super().__call__(scope, receive, send)


def json_response(data: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
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
        headers["Allow"] = error.allowed
    if isinstance(error, BodyTooSlow):
        headers["Connection"] = "close"  # the rest of the body may still come, and is no request
    return json_response({"error": fields, **fields}, status, headers)
