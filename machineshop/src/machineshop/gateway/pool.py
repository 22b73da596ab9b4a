"""The connections to the replicas, and those of them that wait for their next request."""

import asyncio
import ssl
from collections import deque
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from machineshop.gateway.connection import Connection, Unreachable

CONNECT_SECONDS = 5.0
# Servers close connections that were idle for 5 s and more (uvicorn, Node); one that is used just then loses a request.
IDLE_SECONDS = 4.0
SWEEP_SECONDS = 2.0


class Origin(NamedTuple):
    """Who is connected to."""

    host: str
    port: int
    secure: bool = False


def origin_of(base_url: str) -> Origin:
    """Who answers at a base URL."""
    url = urlsplit(base_url)
    secure = url.scheme == "https"
    return Origin(url.hostname or "", url.port or (443 if secure else 80), secure)


class Pool:
    """Makes connections without bounds: how many there are is the callers' affair.

    Args:
        ca_bundle: Whose certificates are trusted, for origins that are secure; None: those that the system trusts.
    """

    def __init__(self, ca_bundle: Path | None = None) -> None:
        self._ca_bundle = ca_bundle
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[Origin, deque[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    async def take(self, origin: Origin) -> Connection:
        """A connection that nobody else uses.

        Raises:
            Unreachable: It cannot be had.
        """
        loop = asyncio.get_running_loop()
        if idle := self._idle.get(origin):
            oldest = loop.time() - IDLE_SECONDS
            while idle:
                connection = idle.pop()
                if connection.idle_since > oldest and not connection.transport.is_closing():
                    return connection
                connection.transport.close()
        return await self._connect(origin)

    def give_back(self, connection: Connection, origin: Origin, *, spoiled: bool = False) -> None:
        """An exchange on it is over.

        Args:
            connection: It.
            origin: Who is at its other end.
            spoiled: The request was not written to its end.
        """
        if connection.released:
            return
        if not connection.end() or spoiled:
            connection.transport.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(origin, deque()).append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep)

    def close(self) -> None:
        """Close what is idle; what is in use is closed by whoever uses it."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for idle in self._idle.values():
            for connection in idle:
                connection.transport.abort()
        self._idle.clear()

    async def _connect(self, origin: Origin) -> Connection:
        try:
            context = self._trust() if origin.secure else None
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, origin.host, origin.port, ssl=context
                )
        except TimeoutError:
            raise Unreachable(f"no connection within {CONNECT_SECONDS:g} s") from None
        except (OSError, ssl.SSLError) as error:
            raise Unreachable(error.strerror or type(error).__name__) from error
        return connection

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self._ca_bundle)
        return self._tls

    def _sweep(self) -> None:
        """Close what has been idle for too long; the oldest stand at the left."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        for origin, idle in list(self._idle.items()):
            while idle and (idle[0].idle_since <= oldest or idle[0].transport.is_closing()):
                idle.popleft().transport.close()
            if not idle:
                del self._idle[origin]
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._sweep) if self._idle else None
