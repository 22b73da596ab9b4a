"""Forwards requests to a deployment's replicas: `/v1/deployment-request/{name or id}/{any path}`.

Plain ASGI on one side and connections of our own on the other, with nothing buffered in between. A request goes to the
ready replica with the fewest in flight; one that could not even be sent goes to another, and one that nobody can take
yet waits for a while.
"""

import logging
import time
from functools import partial
from typing import Self

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from machineshop.config import DEFAULT_GATEWAY_LIMITS, GatewayLimits
from machineshop.errors import MachineshopError, NoReadyReplica, NotPermitted, ReplicaSilent, ReplicaUnreachable
from machineshop.gateway.access import CLIENT_GONE, Entry, log_access
from machineshop.gateway.asked import Asked
from machineshop.gateway.balancer import Run, choose, run_of
from machineshop.gateway.connection import Fault, Garbled, HungUp, Silent
from machineshop.gateway.exchange import Exchange, ImpossibleAnswer, NotTaken, check_tunnel, replica_target
from machineshop.gateway.limits import KeyLimiter
from machineshop.gateway.pool import Pool
from machineshop.gateway.sight import Replicas, Sight
from machineshop.gateway.waiting_room import Place, WaitingRoom
from machineshop.http import USER_SCOPES, address_of, error_response
from machineshop.models import Deployment, Identity
from machineshop.runtime.base import Replica
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.status import standing
from machineshop.services.traffic import Request as Counted
from machineshop.services.traffic import Traffic
from machineshop.states import DeploymentStatus

log = logging.getLogger(__name__)

PREFIX = "/v1/deployment-request"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# Where replicas crash again and again one may still come back; who asks is not to wait long for that.
BROKEN_HOLD_SECONDS = 5.0


# How often a request that may be repeated is, after a replica broke off.
MAX_REPEATS = 3


class Tries:
    """What one request has been through; a context manager."""

    def __init__(self) -> None:
        self.refused: set[Run] = set()
        """Replicas that it has been to since it was called last."""
        self.failure: MachineshopError | None = None
        self.repeats = 0
        self.place: Place | None = None
        self.is_vain = False
        """Whether the replicas crashed again and again when it came."""
        self.until = self.at_most_until = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.place is not None:
            self.place.__exit__(*error)


class Gateway:
    """The ASGI application behind the gateway's route.

    Args:
        identity: Tells whose a key is.
        deployments: What should run.
        replicas: What runs.
        traffic: Is told of every request.
        limits: The bounds.
    """

    def __init__(
        self,
        identity: IdentityService,
        deployments: DeploymentService,
        replicas: Replicas,
        traffic: Traffic,
        limits: GatewayLimits = DEFAULT_GATEWAY_LIMITS,
    ) -> None:
        self._identity = identity
        self._deployments = deployments
        self._traffic = traffic
        self._limits = limits
        self.sight = Sight(replicas)
        self._room = WaitingRoom(limits, self.sight.ready, deployments.get)
        deployments.on_change(self._room.deployments_changed)
        self._keys = KeyLimiter(limits)
        self._pool = Pool()

    def routes(self) -> list[Route]:
        """The gateway's one route, for every method and path."""
        return [Route(PREFIX + "/{deployment}/{path:path}", self, methods=METHODS, name="gateway")]

    def close(self) -> None:
        """Close the connections that wait for their next request."""
        self._pool.close()

    def close_waiting_room(self) -> None:
        """Let nobody wait for a replica any more: those who do are told so."""
        self._room.close()

    def held(self, deployment_id: str) -> int:
        """How many requests wait for a replica of this deployment."""
        return self._room.waiting[deployment_id]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        entry = Entry(time.monotonic())
        asked = Asked(scope, receive, self._limits)
        try:
            await self._answer(asked, send, entry)
        except HungUp:
            entry.status = CLIENT_GONE
        except MachineshopError as error:
            response = error_response(error)
            response.raw_headers.append((b"x-request-id", asked.request_id))
            entry.status = response.status_code
            await response(scope, receive, send)
        finally:
            asked.unwatch()
            log_access(asked, entry)

    async def _answer(self, asked: Asked, send: Send, entry: Entry) -> None:
        identity = await self._authenticate(asked)
        asked.key_holds = partial(self._identity.still_holds, identity)
        entry.key = identity.key.prefix
        deployment = await self._deployments.get(identity.project.id, asked.deployment)
        entry.deployment = deployment.name
        check_tunnel(asked)
        self._keys.enter(identity.key.id, time.monotonic())
        try:
            await asked.begin()
            with self._traffic.request(deployment.id) as counted, Tries() as tries:
                await self._forward(asked, deployment, send, counted, tries, entry)
        finally:
            self._keys.leave(identity.key.id)

    async def _authenticate(self, asked: Asked) -> Identity:
        identity = await self._identity.authenticate(asked.token, address_of(asked.scope))
        if identity.key.scope not in USER_SCOPES:
            raise NotPermitted(needed=" or ".join(USER_SCOPES), scope=identity.key.scope)
        return identity

    async def _forward(
        self, asked: Asked, deployment: Deployment, send: Send, counted: Counted, tries: Tries, entry: Entry
    ) -> None:
        """Send it to one replica after another, until it is answered."""
        while True:
            ready = await self.sight.ready(deployment.id)
            replica = choose(ready, self._traffic.in_flight, tries.refused)
            if replica is None:
                await self._hold(asked, deployment, counted, tries)
                continue
            target = replica_target(asked, replica, deployment.name)
            exchange = Exchange(asked, send, target, self._limits.silence_seconds)
            counted.send(replica.id)
            try:
                await exchange.run(self._pool)
                counted.answered()
                self._room.call_one(deployment.id)
                return
            except NotTaken:
                tries.failure = None
            except Fault as fault:
                if exchange.status is not None:
                    self._tell_of_cut(deployment, replica, fault)
                    return
                tries.failure = self._judge(fault, asked, deployment, exchange, tries)
            finally:
                entry.replica, entry.status, entry.answered_bytes = replica.id, exchange.status, exchange.answered_bytes
            tries.refused.add(run_of(replica))

    def _tell_of_cut(self, deployment: Deployment, replica: Replica, fault: Fault) -> None:
        """The server closes the connection of an answer without an end: the caller must know."""
        if isinstance(fault, HungUp):
            raise fault
        log.warning("gateway.cut deployment=%s replica=%s error=%s", deployment.name, replica.id, fault)

    def _judge(
        self, fault: Fault, asked: Asked, deployment: Deployment, exchange: Exchange, tries: Tries
    ) -> MachineshopError:
        """What the caller is told where no other replica takes the request; raised where none may be asked."""
        if isinstance(fault, HungUp):
            raise fault
        if isinstance(fault, Garbled):  # others of the same image would say the same
            raise ImpossibleAnswer(name=f"A replica of '{deployment.name}'", what=f"words: {fault}") from fault
        kind = ReplicaSilent if isinstance(fault, Silent) else ReplicaUnreachable
        error = kind(name=deployment.name, cause=str(fault))
        if not exchange.sent:
            return error
        tries.repeats += 1
        if isinstance(fault, Silent) or not asked.may_repeat or tries.repeats > MAX_REPEATS:
            raise error from fault
        return error

    async def _hold(self, asked: Asked, deployment: Deployment, counted: Counted, tries: Tries) -> None:
        """Wait until there may be a replica that takes the request.

        Raises:
            MachineshopError: There is none in time.
            HungUp: The caller is gone.
        """
        if tries.place is None:
            if deployment.config.max_replicas == 0:
                raise await self._not_ready(deployment)
            tries.is_vain = await self._is_broken(deployment)
            tries.at_most_until = time.monotonic() + self._limits.hold_seconds
            tries.until = min(tries.at_most_until, time.monotonic() + BROKEN_HOLD_SECONDS)
            tries.place = self._room.place(deployment).__enter__()
        counted.hold()
        asked.gone = tries.place.gone
        asked.watch()
        try:
            await tries.place.called(tries.until - time.monotonic())
        except TimeoutError:
            is_over = tries.until == tries.at_most_until
            # A replica that crashes may just have been on its way to that when the request came.
            if is_over or (tries.failure is None and (tries.is_vain or await self._is_broken(deployment))):
                raise tries.failure or await self._not_ready(deployment) from None
            tries.until = tries.at_most_until
        if self._room.closed:
            raise NoReadyReplica("The server is about to end. Try again shortly.")
        tries.refused.clear()

    async def _is_broken(self, deployment: Deployment) -> bool:
        """Whether its replicas crash again and again, or cannot start at all."""
        state = standing(deployment, await self.sight.of(deployment.id), time.time())
        return state.status is DeploymentStatus.FAILED and not state.ready_replicas

    async def _not_ready(self, deployment: Deployment) -> NoReadyReplica:
        replicas = await self.sight.of(deployment.id)
        state = standing(deployment, replicas, time.time())
        if state.ready_replicas:
            return NoReadyReplica(
                f"All {state.ready_replicas} replicas of '{deployment.name}' are busy. Try again shortly."
            )
        if deployment.config.max_replicas == 0:
            return NoReadyReplica(
                f"'{deployment.name}' may have no replica: its max_replicas is 0. "
                f"'jig scale {deployment.name} --max 1' lets one run."
            )
        why = f" ({state.message.rstrip('.')})" if state.message else ""
        return NoReadyReplica(
            f"No replica of '{deployment.name}' is ready to answer{why}; 'jig status' says why. Try again shortly."
        )
