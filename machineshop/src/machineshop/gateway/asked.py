"""What a caller asked the gateway for: the head of a request, looked at once, and its body as it comes."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.types import Receive, Scope

from machineshop.config import GatewayLimits
from machineshop.errors import BodyTooSlow, PayloadTooLarge
from machineshop.gateway.connection import HungUp
from machineshop.gateway.headers import Header, wants_websocket
from machineshop.ids import new_id

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
MAX_REQUEST_ID_BYTES = 128
_DIGITS = re.compile(rb"[0-9]{1,19}")


class Asked:
    """One request.

    Args:
        scope: As ASGI has it.
        receive: Gives its body, and says when the caller hangs up.
        limits: The bounds of a body.
    """

    def __init__(self, scope: Scope, receive: Receive, limits: GatewayLimits) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.headers: list[Header] = list(scope["headers"])
        self.token: str | None = None
        self.key_holds: Callable[[], Awaitable[bool]] | None = None
        """Whether the caller's key is good still; None: whoever the request is passed on to looks."""
        self.length: int | None = None
        self.chunked = False
        self.request_id = b""
        self.host = b""
        self.relayed = False
        upgrade = False
        for name, value in self.headers:
            if name == b"authorization":
                self.token = _bearer(value)
            elif name == b"content-length":
                self.length = int(value) if _DIGITS.fullmatch(value.strip()) else None
            elif name == b"transfer-encoding":
                self.chunked = True
            elif name == b"x-request-id":
                self.request_id = value[:MAX_REQUEST_ID_BYTES]
            elif name == b"host":
                self.host = value
            elif name == b"upgrade":
                upgrade = True
        self.request_id = self.request_id or new_id().encode()
        self.websocket = upgrade and wants_websocket(self.headers)
        self.has_body = not self.websocket and (self.chunked or bool(self.length))
        self.first = b""
        """The first piece of the body."""
        self.whole = not self.has_body
        """Whether all of the body was taken."""
        self.replayable = not self.websocket and not self.has_body
        """Whether all of it is at hand still, so that it can be sent again."""
        self.gone: Callable[[HungUp], None] = _nobody_cares
        """Called when the caller hangs up, once it is watched."""
        self._receive = receive
        self._limits = limits
        self.taken_bytes = 0
        """How much of the body came."""
        self._watch: asyncio.Task[None] | None = None

    @property
    def deployment(self) -> str:
        """The name or id in its path: `/v1/deployment-request/{deployment}/...`."""
        path: str = self.scope["path"]
        return path.split("/", 4)[3]

    @property
    def raw_path(self) -> bytes:
        """The path as it came, with its percent signs."""
        path: bytes = self.scope.get("raw_path") or quote(self.scope["path"]).encode()
        return path

    @property
    def query(self) -> bytes:
        """The query with its question mark, or nothing."""
        query: bytes = self.scope["query_string"]
        return b"?" + query if query else b""

    @property
    def client(self) -> str:
        """The caller's address."""
        client = self.scope.get("client")
        return client[0] if client else "unknown"

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again after a replica may have begun with it."""
        return self.method in IDEMPOTENT and self.replayable

    async def begin(self) -> None:
        """Take the first piece of the body, which is the whole one where it is small.

        Raises:
            PayloadTooLarge: It is longer than it may be.
            BodyTooSlow: Nothing of it came for too long.
            HungUp: The caller is gone.
        """
        if self.has_body:
            if self.length is not None and self.length > self._limits.body_bytes:
                raise self._too_large()
            self.first = await self.more()
            self.replayable = self.whole

    async def more(self) -> bytes:
        """The next piece of the body; `whole` once it was the last one.

        Raises:
            PayloadTooLarge: It is longer than it may be.
            BodyTooSlow: Nothing came for too long.
            HungUp: The caller is gone.
        """
        try:
            async with asyncio.timeout(self._limits.body_silence_seconds):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow(self._limits.body_silence_seconds) from None
        if message["type"] == "http.disconnect":
            raise HungUp("the caller hung up")
        piece: bytes = message.get("body", b"")
        self.taken_bytes += len(piece)
        if self.taken_bytes > self._limits.body_bytes:
            raise self._too_large()
        self.whole = not message.get("more_body", False)
        return piece

    def watch(self) -> None:
        """Call `gone` when the caller hangs up, as soon as there is nothing else to take from it."""
        if self._watch is None and self.whole and not self.websocket:
            self._watch = asyncio.ensure_future(self._until_gone())

    def unwatch(self) -> None:
        """Watch no longer."""
        if self._watch is not None:
            self._watch.cancel()

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone(HungUp("the caller hung up"))

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            what="The request body",
            limit_bytes=self._limits.body_bytes,
            mend="Upload large inputs as files and send their URLs, or have --gateway-max-body-mib raised.",
        )


def _nobody_cares(_fault: HungUp) -> None:
    """What happens when a caller hangs up of whom nothing is wanted at the moment."""


def _bearer(value: bytes) -> str | None:
    kind, _, token = value.decode("latin-1").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None
