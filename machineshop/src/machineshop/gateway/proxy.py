"""Forwards requests to a deployment's replicas: `/v1/deployment-request/{name or id}/{any path}`.

Plain ASGI on one side and aiohttp on the other, with nothing buffered in between. A request goes to the ready replica
with the fewest in flight; one that could not even be sent goes to another.
"""

import logging
from typing import Protocol

import aiohttp
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from machineshop.errors import InvalidRequest, MachineshopError, NoReadyReplica, NotPermitted, ReplicaUnreachable
from machineshop.gateway.balancer import choose
from machineshop.gateway.exchange import Exchange, replica_target
from machineshop.gateway.headers import asks_for_websocket
from machineshop.gateway.session import open_session
from machineshop.http import USER_SCOPES, bearer_token, error_response
from machineshop.models import Deployment
from machineshop.runtime.base import Replica
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.traffic import Request as Counted
from machineshop.services.traffic import Traffic

log = logging.getLogger(__name__)

PREFIX = "/v1/deployment-request"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class Replicas(Protocol):
    """Who knows the replicas: the runtime."""

    async def observe(self) -> list[Replica]:
        """All of them."""
        ...


class Gateway:
    """The ASGI application behind the gateway's route."""

    def __init__(
        self, identity: IdentityService, deployments: DeploymentService, replicas: Replicas, traffic: Traffic
    ) -> None:
        self._identity = identity
        self._deployments = deployments
        self._replicas = replicas
        self._traffic = traffic
        self._session: aiohttp.ClientSession | None = None

    def routes(self) -> list[Route]:
        """The gateway's one route, for every method and path."""
        return [Route(PREFIX + "/{deployment}/{path:path}", self, methods=METHODS, name="gateway")]

    async def start(self) -> None:
        """Open the connection pool."""
        self._session = open_session()

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate, then forward."""
        request = Request(scope, receive)
        try:
            deployment = await self._authorize(request)
            if asks_for_websocket(request.headers.raw):
                raise InvalidRequest(
                    "The gateway does not carry WebSockets yet. Send plain HTTP requests; answers may stream."
                )
            with self._traffic.request(deployment.id) as counted:
                await self._forward(request, deployment, send, counted)
        except MachineshopError as error:
            await error_response(error)(scope, receive, send)

    async def _authorize(self, request: Request) -> Deployment:
        identity = await self._identity.authenticate(bearer_token(request.headers))
        if identity.key.scope not in USER_SCOPES:
            raise NotPermitted(needed=" or ".join(USER_SCOPES), scope=identity.key.scope)
        return await self._deployments.get(identity.project.id, request.path_params["deployment"])

    async def _forward(self, request: Request, deployment: Deployment, send: Send, counted: Counted) -> None:
        refused: frozenset[str] = frozenset()
        failure: MachineshopError = NoReadyReplica(
            f"No replica of '{deployment.name}' is ready to answer; 'jig status' says why. Try again shortly."
        )
        while replica := await self._choose(deployment, refused):
            exchange = Exchange(request, send, replica_target(request, replica, deployment.name))
            counted.send(replica.id)
            try:
                await exchange.run(self._opened())
                counted.answered()
                return
            except aiohttp.ClientError as error:
                if exchange.started:
                    log.warning("gateway.cut deployment=%s replica=%s error=%s", deployment.name, replica.id, error)
                    return  # the server closes the connection of an answer without an end: the caller must know
                failure = ReplicaUnreachable(name=deployment.name, cause=type(error).__name__)
                if not exchange.may_retry(error):
                    break
                refused |= {replica.id}
        raise failure

    async def _choose(self, deployment: Deployment, refused: frozenset[str]) -> Replica | None:
        replicas = [r for r in await self._replicas.observe() if r.deployment_id == deployment.id]
        in_flight = {replica.id: self._traffic.in_flight(replica.id) for replica in replicas}
        return choose(replicas, in_flight, refused)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise NoReadyReplica("The gateway is not open yet.")
        return self._session
