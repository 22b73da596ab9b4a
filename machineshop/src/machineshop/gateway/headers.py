"""Which headers pass through the gateway, byte for byte. Pure."""

import re
from collections.abc import Iterable

Header = tuple[bytes, bytes]

# Those that mean only the connection on which they came (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# The caller's key is for the platform alone; a replica never sees it.
WITHHELD = frozenset({b"authorization", b"host", b"cookie"})
# On a request that another server of the platform has passed on: which one.
RELAYED = "x-machineshop-relayed-by"
# Our own server sends these.
REPLACED = frozenset({b"date", b"server", b"x-request-id"})
# Answers that never have a body, whatever their headers say of its length.
BODILESS = frozenset({204, 304})

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")


def to_replica(headers: Iterable[Header], client: str, request_id: str) -> list[tuple[str, str]]:
    """A request's headers for the replica, as Latin-1 text: a character is a byte."""
    headers = list(headers)
    ours = {b"x-forwarded-for", b"x-request-id", RELAYED.encode()}
    dropped = HOP_BY_HOP | WITHHELD | _named_by_connection(headers) | ours
    kept = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name not in dropped]
    return [*kept, ("x-forwarded-for", client), ("x-request-id", request_id)]


def to_server(headers: Iterable[Header], request_id: str, server_id: str) -> list[tuple[str, str]]:
    """A request's headers for another server of the platform: with the caller's key, since that one asks for it too."""
    headers = list(headers)
    dropped = HOP_BY_HOP | _named_by_connection(headers) | {b"host", b"x-request-id", RELAYED.encode()}
    kept = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name not in dropped]
    return [*kept, ("x-request-id", request_id), (RELAYED, server_id)]


def to_client(headers: Iterable[Header], status: int, request_id: str) -> list[Header]:
    """A response's headers for the caller."""
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = HOP_BY_HOP | REPLACED | _named_by_connection(lowered)
    if status in BODILESS:  # our server would hold it to a length
        dropped |= {b"content-length"}
    return [
        *(header for header in lowered if header[0] not in dropped),
        (b"x-request-id", request_id.encode("latin-1")),
    ]


def malformed(headers: Iterable[Header]) -> str | None:
    """The name of the first header that no HTTP message may have."""
    bad = (name for name, value in headers if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)))
    return next((ascii(name.decode("latin-1")) for name in bad), None)


def asks_for_websocket(headers: Iterable[Header]) -> bool:
    """Whether a request wants its connection to become a WebSocket."""
    headers = list(headers)
    upgrades = {value.strip().lower() for name, value in headers if name == b"upgrade"}
    return b"websocket" in upgrades and b"upgrade" in _named_by_connection(headers)


def _named_by_connection(headers: Iterable[Header]) -> set[bytes]:
    """What the sender itself has declared as meant for one hop."""
    return {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
