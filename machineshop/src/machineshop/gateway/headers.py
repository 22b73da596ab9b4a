"""Which headers pass through the gateway. Pure."""

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
# Our own server sends these.
REPLACED = frozenset({b"date", b"server", b"x-request-id"})


def to_replica(headers: Iterable[Header], client: str, request_id: str) -> list[tuple[str, str]]:
    """A request's headers for the replica."""
    headers = list(headers)
    dropped = HOP_BY_HOP | WITHHELD | _named_by_connection(headers) | {b"x-forwarded-for", b"x-request-id"}
    kept = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers if name not in dropped]
    return [*kept, ("x-forwarded-for", client), ("x-request-id", request_id)]


def to_client(headers: Iterable[Header], request_id: str) -> list[Header]:
    """A response's headers for the caller."""
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = HOP_BY_HOP | REPLACED | _named_by_connection(lowered)
    return [*(header for header in lowered if header[0] not in dropped), (b"x-request-id", request_id.encode())]


def _named_by_connection(headers: Iterable[Header]) -> set[bytes]:
    """What the sender itself has declared as meant for one hop."""
    return {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
