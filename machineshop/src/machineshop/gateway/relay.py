"""Passes on what only the server that runs the replicas can answer: logs, the replicas' states, the gateway itself.

Place in the flow: of several servers on one database one holds the lease, and with it the runtime. Any other server
that is asked for something of the runtime hands the request on to that one as it came, with the caller's own key, and
the answer back, with nothing buffered in between.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from machineshop.config import DEFAULT_GATEWAY_LIMITS, GatewayLimits
from machineshop.errors import HolderAway, MachineshopError
from machineshop.gateway.asked import Asked
from machineshop.gateway.connection import Fault, HungUp
from machineshop.gateway.exchange import Exchange, check_tunnel, server_target
from machineshop.gateway.headers import RELAYED
from machineshop.gateway.pool import Pool, origin_of
from machineshop.http import address_of, error_response

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
        limits: The bounds, which are those of the gateway.
        admit: Refuses a key that nobody has: here, where it is known from which address it comes.
    """

    def __init__(
        self,
        lease: Lease,
        server_id: str,
        ca_bundle: Path | None = None,
        limits: GatewayLimits = DEFAULT_GATEWAY_LIMITS,
        admit: Callable[[str | None, str], Awaitable[None]] | None = None,
    ) -> None:
        self._lease = lease
        self._server_id = server_id
        self._limits = limits
        self._admit = admit
        self._pool = Pool(ca_bundle)

    def close(self) -> None:
        """Close the connections that wait for their next request."""
        self._pool.close()

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
            asked = Asked(scope, receive, self._limits)
            try:
                if self._admit is not None:
                    await self._admit(asked.token, address_of(scope))
                await self._pass_on(asked, send)
            except HungUp:
                return
            except MachineshopError as error:
                await error_response(error)(scope, receive, send)
            finally:
                asked.unwatch()

        return relayed

    async def _pass_on(self, asked: Asked, send: Send) -> None:
        url = self._lease.holder_url
        if url is None:
            raise HolderAway("No server runs the replicas at this moment; one is about to. Try again shortly.")
        if any(name == RELAYED.encode() for name, _ in asked.headers):
            raise HolderAway("Another server has just begun to run the replicas. Try again shortly.")
        check_tunnel(asked)
        await asked.begin()
        target = server_target(asked, origin_of(url), self._server_id)
        exchange = Exchange(asked, send, target, self._limits.silence_seconds)
        try:
            await self._run(exchange, url)
        except HungUp:
            raise
        except Fault as fault:
            if exchange.status is not None:
                log.warning("relay.cut holder=%s error=%s", url, fault)
                return  # the server closes the connection of an answer without an end: the caller must know
            raise _away(url, str(fault)) from fault

    async def _run(self, exchange: Exchange, url: str) -> None:
        """Carry the exchange to its end, or as long as that server has the lease: one that is halted never answers."""
        running = asyncio.ensure_future(exchange.run(self._pool))
        changed = asyncio.ensure_future(self._lease.changed())
        try:
            await asyncio.wait([running, changed], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            elif exchange.status is None:
                raise _away(url, "another server has taken over from it")
        finally:
            for task in (running, changed):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(running, changed, return_exceptions=True)


def _away(url: str, why: str) -> HolderAway:
    return HolderAway(f"The server at {url}, which runs the replicas, does not answer ({why}). Try again shortly.")
