"""One request to a replica, or to another server, and the answer back, with nothing buffered in between."""

import asyncio
import re
from typing import NamedTuple

from starlette.types import Send

from machineshop.errors import InvalidRequest, MachineshopError, ReplicaUnreachable
from machineshop.gateway import headers
from machineshop.gateway.asked import Asked
from machineshop.gateway.connection import SWITCHING, Connection, Fault, Head, HungUp
from machineshop.gateway.pool import Origin, Pool
from machineshop.gateway.tunnel import carry
from machineshop.protocol import TUNNEL
from machineshop.runtime.base import Replica

# Lower ones are no answers: those that only announce one never get here.
STATUSES = range(200, 600)
# Behind as many slashes the replica's own path begins: `/v1/deployment-request/{deployment}/`. An encoded slash is one
# too here, because routes match the decoded path.
SLASHES_BEFORE_TAIL = 4
SLASH = re.compile(rb"/|%2[Ff]")
# Whoever has an answer sooner is not watched for hanging up: that costs more than it saves.
WATCH_AFTER_SECONDS = 0.02


class ImpossibleAnswer(ReplicaUnreachable):
    """{name} answered with the impossible {what}: mend the server that said so."""


class Target(NamedTuple):
    """Where a request goes, and how it is written there."""

    origin: Origin
    path: bytes
    lines: bytes
    """The headers, each with its line's end, but for those that say how long the body is."""
    name: str
    """Who that is, in a message."""


class NotTaken(Exception):
    """A worker of the platform did not begin with the request: another one may have it, or this one later."""


def replica_target(asked: Asked, replica: Replica, deployment_name: str) -> Target:
    """A replica, which never sees the caller's key."""
    origin = Origin(replica.host, replica.port or 0)
    ours = [
        (b"x-forwarded-for", asked.client.encode("latin-1", "replace")),
        (b"x-forwarded-proto", asked.scope.get("scheme", "http").encode()),
        (b"x-forwarded-prefix", b"/v1/deployment-request/" + deployment_name.encode()),
        (b"x-request-id", asked.request_id),
    ]
    if asked.host:
        ours.append((b"x-forwarded-host", asked.host))
    lines = b"host: " + _authority(origin) + b"\r\n" + headers.to_replica(asked.headers, ours)
    return Target(origin, b"/" + own_path(asked.raw_path) + asked.query, lines, f"A replica of '{deployment_name}'")


def own_path(raw_path: bytes) -> bytes:
    """The replica's own part of a path, without its first slash."""
    return SLASH.split(raw_path, SLASHES_BEFORE_TAIL)[-1]


def server_target(asked: Asked, origin: Origin, server_id: str) -> Target:
    """Another server of the platform, which is asked the same; `server_id` is this one."""
    ours = [(b"x-request-id", asked.request_id), (headers.RELAYED.encode(), server_id.encode())]
    lines = b"host: " + _authority(origin) + b"\r\n" + headers.to_server(asked.headers, ours)
    name = f"The server at {origin.host}:{origin.port}"
    return Target(origin, asked.raw_path + asked.query, lines, name)


class Exchange:
    """One request to one target.

    Args:
        asked: The request.
        send: Takes the answer.
        target: Where it goes.
        silence_seconds: How long the target may say nothing.
    """

    def __init__(self, asked: Asked, send: Send, target: Target, silence_seconds: float) -> None:
        self._asked = asked
        self._send = send
        self._target = target
        self._silence_seconds = silence_seconds
        self._upload_failure: MachineshopError | None = None
        self.sent = False
        """Whether the target may have begun with the request."""
        self.status: int | None = None
        """The answer's status, once the caller has got the beginning of it."""
        self.answered_bytes = 0

    async def run(self, pool: Pool) -> None:
        """Forward; ends early when the caller hangs up, which hangs up on the target too.

        Raises:
            Fault: The target could not be reached, or broke off, or the caller did.
            NotTaken: The target has not begun with it.
            ImpossibleAnswer: No HTTP message can say what it answered.
            MachineshopError: The request's body is not to be had.
        """
        connection = await pool.take(self._target.origin)
        upload: asyncio.Task[None] | None = None
        watch: asyncio.TimerHandle | None = None
        asked = self._asked
        asked.gone = connection.abort
        try:
            connection.begin(head_only=asked.method == "HEAD")
            connection.write(self._request())
            self.sent = True
            if asked.whole:
                watch = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, asked.watch)
            else:
                upload = asyncio.ensure_future(self._upload(connection))
            await self._answer(connection)
        except Fault:
            if self._upload_failure is not None and self.status is None:
                raise self._upload_failure from None
            raise
        finally:
            asked.gone = _nobody_cares
            if watch is not None:
                watch.cancel()
            if upload is not None:
                upload.cancel()
            pool.give_back(connection, self._target.origin, spoiled=not asked.whole)

    def _request(self) -> bytes:
        """The head, with the body's first piece."""
        asked, target = self._asked, self._target
        head = b"%b %b HTTP/1.1\r\n%b" % (asked.method.encode(), target.path, target.lines)
        if asked.websocket:
            return head + b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n"
        if not asked.has_body:
            return head + (b"content-length: 0\r\n\r\n" if asked.length == 0 else b"\r\n")
        if asked.replayable:
            return head + b"content-length: %d\r\n\r\n" % len(asked.first) + asked.first
        if asked.length is not None and not asked.chunked:
            return head + b"content-length: %d\r\n\r\n" % asked.length + asked.first
        return head + b"transfer-encoding: chunked\r\n\r\n" + _chunk(asked.first)

    async def _upload(self, connection: Connection) -> None:
        """Send the rest of the body as it comes, and no faster than it is taken."""
        asked = self._asked
        by_length = asked.length is not None and not asked.chunked
        try:
            while not asked.whole:
                await connection.drain()
                piece = await asked.more()
                connection.write(piece if by_length else _chunk(piece))
            if not by_length:
                connection.write(b"0\r\n\r\n")
            asked.watch()
        except Fault as fault:
            connection.abort(fault)
        except MachineshopError as error:
            self._upload_failure = error
            connection.abort(HungUp(error.message))

    async def _answer(self, connection: Connection) -> None:
        head = await connection.head(self._silence_seconds)
        self._check(head)
        if head.status == SWITCHING:
            await self._tunnel(connection, head)
            return
        passed_on = headers.to_client(head.headers, head.status, self._asked.request_id)
        if self._asked.websocket:
            passed_on.append((b"connection", b"close"))
        self.status = head.status
        await self._send({"type": "http.response.start", "status": head.status, "headers": passed_on})
        if self._asked.method == "HEAD" or head.status in headers.BODILESS:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        while (rest := connection.at_hand()) is None:
            part = await connection.read(self._silence_seconds)
            self.answered_bytes += len(part)
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        self.answered_bytes += len(rest)
        await self._send({"type": "http.response.body", "body": rest, "more_body": False})

    async def _tunnel(self, connection: Connection, head: Head) -> None:
        """The caller and the target speak to one another from now on."""
        release = self._asked.scope["extensions"][TUNNEL]
        self.status = SWITCHING
        switched = headers.switched([*head.headers, (b"x-request-id", self._asked.request_id)])
        self.answered_bytes = await carry(
            lambda side: release(switched, side), connection.release(), self._silence_seconds, self._asked.key_holds
        )

    def _check(self, head: Head) -> None:
        """Refuse what our own server could not pass on, and what is none of an answer."""
        if head.status not in STATUSES and not (head.status == SWITCHING and self._asked.websocket):
            raise ImpossibleAnswer(name=self._target.name, what=f"status {head.status}")
        if bad := headers.malformed(head.headers):
            raise ImpossibleAnswer(name=self._target.name, what=f"header {bad}")
        if head.status == 503 and self._asked.replayable and any(n == headers.NOT_TAKEN for n, _ in head.headers):
            raise NotTaken


def check_tunnel(asked: Asked) -> None:
    """Refuse to make a WebSocket of a connection that cannot become one.

    Raises:
        InvalidRequest: The server in front of us does not let go of it.
    """
    if asked.websocket and TUNNEL not in asked.scope.get("extensions", {}):
        raise InvalidRequest("This connection cannot become a WebSocket: ask over HTTP/1.1 with GET.")


def _authority(origin: Origin) -> bytes:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"{host}:{origin.port}".encode()


def _chunk(piece: bytes) -> bytes:
    """A piece of a body whose length nobody knows; an empty one would be its end."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


def _nobody_cares(_fault: HungUp) -> None:
    """Nothing is under way that a caller could hang up on."""
