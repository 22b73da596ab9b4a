"""The connections to the replicas."""

import ssl
from collections.abc import Iterable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

CONNECT_SECONDS = 5.0
# A model may think for long before its first byte; without any byte for this long the replica counts as stuck.
SILENCE_SECONDS = 3600.0


def open_session(tls: ssl.SSLContext | None = None) -> aiohttp.ClientSession:
    """A pool without bounds that adds nothing to a request and undoes nothing of an answer.

    Args:
        tls: Whose certificates are trusted; None: those that the system trusts.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ssl=True if tls is None else tls),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        request_class=Latin1Request,
    )


class Latin1Request(aiohttp.ClientRequest):
    """A request whose headers, given as Latin-1 text, arrive as the bytes that they were.

    aiohttp writes every header as UTF-8, and that cannot say all bytes.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Write the request; one with only ASCII in its headers takes the plain way."""
        protocol = conn.protocol
        if protocol is not None and not all(value.isascii() for value in self.headers.values()):
            protocol.transport = _Latin1Head(protocol)  # type: ignore[assignment]
        return await super().send(conn)


class _Latin1Head:
    """Stands before a connection's transport until the head of one request has passed, which is the first write."""

    def __init__(self, protocol: ResponseHandler) -> None:
        self._protocol = protocol
        self._transport = protocol.transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write the head, and what comes with it of the body."""
        head, end, body = bytes(data).partition(b"\r\n\r\n")
        self._protocol.transport = self._transport
        if self._transport is not None:
            self._transport.write(head.decode().encode("latin-1") + end + body)

    def writelines(self, parts: Iterable[bytes]) -> None:
        """The same for a head in parts."""
        self.write(b"".join(parts))
