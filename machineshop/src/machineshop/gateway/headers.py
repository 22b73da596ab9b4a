"""Which headers pass through the gateway, byte for byte. Pure."""

import re
from collections.abc import Iterable

Header = tuple[bytes, bytes]

# Those that mean only the connection on which they came (RFC 9110, 7.6.1), or that say where its messages end.
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
        b"http2-settings",
    }
)
# The platform's own server has answered an expectation, and says how long a body is by itself.
SETTLED = frozenset({b"expect", b"content-length", b"host", b"x-request-id"})
# The caller's key is for the platform alone; a replica never sees it.
WITHHELD = frozenset({b"authorization", b"cookie"})
# On a request that another server of the platform has passed on: which one.
RELAYED = "x-machineshop-relayed-by"
# Who asked, as the platform says; what the caller says of it is left out.
FORWARDED = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
        RELAYED.encode(),
    }
)
NOT_TO_REPLICA = HOP_BY_HOP | SETTLED | WITHHELD | FORWARDED
NOT_TO_SERVER = HOP_BY_HOP | SETTLED | {RELAYED.encode()}
# A worker of the platform answers so where it has not begun with a request, and another one may have it: why.
NOT_TAKEN = b"x-sprocket-not-taken"
# Our own server sends these; and cookies of a replica would be cookies of the platform.
REPLACED = frozenset({b"date", b"server", b"x-request-id", b"set-cookie"})
NOT_TO_CLIENT = HOP_BY_HOP | REPLACED
# Answers that never have a body, whatever their headers say of its length.
BODILESS = frozenset({204, 304})

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")


def to_replica(headers: Iterable[Header], ours: Iterable[Header]) -> bytes:
    """A request's headers for the replica, as lines; `ours` stand behind the caller's."""
    return _lines(headers, NOT_TO_REPLICA, ours)


def to_server(headers: Iterable[Header], ours: Iterable[Header]) -> bytes:
    """A request's headers for another server of the platform: with the caller's key, since that one asks for it too."""
    return _lines(headers, NOT_TO_SERVER, ours)


def to_client(headers: Iterable[Header], status: int, request_id: bytes) -> list[Header]:
    """A response's headers, whose names are in lower case, for the caller."""
    headers = list(headers)
    dropped = NOT_TO_CLIENT | _named_by_connection(headers)
    if status in BODILESS:  # our server would hold it to a length
        dropped |= {b"content-length"}
    return [*(header for header in headers if header[0] not in dropped), (b"x-request-id", request_id)]


def malformed(headers: Iterable[Header]) -> str | None:
    """The name of the first header that no HTTP message may have."""
    for name, value in headers:
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            return ascii(name.decode("latin-1"))
    return None


def wants_websocket(headers: Iterable[Header]) -> bool:
    """Whether a request wants its connection to become a WebSocket."""
    headers = list(headers)
    upgrades = {value.strip().lower() for name, value in headers if name == b"upgrade"}
    return b"websocket" in upgrades and b"upgrade" in _named_by_connection(headers)


def switched(headers: Iterable[Header]) -> bytes:
    """The head of the answer that turns a connection into a WebSocket, from those that the replica gave."""
    dropped = HOP_BY_HOP | REPLACED | {b"content-length"}
    ours = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))
    return b"HTTP/1.1 101 Switching Protocols\r\n" + _lines(headers, dropped, ours) + b"\r\n"


def _lines(headers: Iterable[Header], dropped: frozenset[bytes], ours: Iterable[Header]) -> bytes:
    headers = list(headers)
    dropped = dropped | _named_by_connection(headers)
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] not in dropped]
    lines += [b"%b: %b\r\n" % header for header in ours]
    return b"".join(lines)


def _named_by_connection(headers: Iterable[Header]) -> set[bytes]:
    """What the sender itself has declared as meant for one hop."""
    values = [value for name, value in headers if name == b"connection"]
    return {token.strip().lower() for value in values for token in value.split(b",")}
