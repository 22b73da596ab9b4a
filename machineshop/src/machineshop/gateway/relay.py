"""Passes on what only the server that runs the replicas can answer: logs, the replicas' states, the gateway itself.

Place in the flow: of several servers on one database one holds the lease, and with it the runtime. Any other server
that is asked for something of the runtime hands the request on to that one as it came, with the caller's own key, and
the answer back, with nothing buffered in between.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import aiohttp
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from machineshop.errors import HolderAway, MachineshopError
from machineshop.gateway.exchange import Exchange, server_target
from machineshop.gateway.headers import RELAYED
from machineshop.gateway.session import open_session
from machineshop.http import error_response

log = logging.getLogger(__name__)


class Lease(Protocol):
    """Who runs the replicas."""

    @property
    def held(self) -> bool:
        """This server does."""
        ...

    @property
    def holder_url(self) -> str | None:
        """Where the one that does is reached; None where nobody is known."""
        ...

    async def changed(self) -> None:
        """Return once it is another one."""


class Relay:
    """Stands before the routes that need the runtime.

    Args:
        lease: Who runs the replicas.
        server_id: Who we are: a request that we pass on carries it, and is never passed on again.
        ca_bundle: Whose certificates are trusted, where the system's authorities do not know those of servers.
    """

    def __init__(self, lease: Lease, server_id: str, ca_bundle: Path | None = None) -> None:
        self._lease = lease
        self._server_id = server_id
        self._ca_bundle = ca_bundle
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool."""
        tls = None if self._ca_bundle is None else ssl.create_default_context(cafile=self._ca_bundle)
        self._session = open_session(tls)

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()

    def guard(self, routes: Iterable[Route]) -> list[Route]:
        """The same routes; while another server runs the replicas, it answers them."""
        routes = list(routes)
        for route in routes:
            route.app = self._around(route.app)
        return routes

    def _around(self, app: ASGIApp) -> ASGIApp:
        async def relayed(scope: Scope, receive: Receive, send: Send) -> None:
            if self._lease.held:
                await app(scope, receive, send)
                return
            try:
                await self._pass_on(Request(scope, receive), send)
            except MachineshopError as error:
                await error_response(error)(scope, receive, send)

        return relayed

    async def _pass_on(self, request: Request, send: Send) -> None:
        url = self._lease.holder_url
        if url is None or self._session is None:
            raise HolderAway("No server runs the replicas at this moment; one is about to. Try again shortly.")
        if RELAYED in request.headers:
            raise HolderAway("Another server has just begun to run the replicas. Try again shortly.")
        exchange = Exchange(request, send, server_target(request, url, self._server_id))
        try:
            await self._run(exchange, self._session, url)
        except aiohttp.ClientError as error:
            if exchange.started:
                log.warning("relay.cut holder=%s error=%s", url, error)
                return  # the server closes the connection of an answer without an end: the caller must know
            raise _away(url, type(error).__name__) from error

    async def _run(self, exchange: Exchange, session: aiohttp.ClientSession, url: str) -> None:
        """Carry the exchange to its end, or as long as that server has the lease: one that is halted never answers."""
        running = asyncio.ensure_future(exchange.run(session))
        changed = asyncio.ensure_future(self._lease.changed())
        try:
            await asyncio.wait([running, changed], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            elif not exchange.started:
                raise _away(url, "another server has taken over from it")
        finally:
            for task in (running, changed):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(running, changed, return_exceptions=True)


def _away(url: str, why: str) -> HolderAway:
    return HolderAway(f"The server at {url}, which runs the replicas, does not answer ({why}). Try again shortly.")
