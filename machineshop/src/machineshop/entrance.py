"""Where connections come in when the server speaks HTTPS: one port for it, and a word for those who speak plain HTTP.

Clients know one base URL, so there is no second port to redirect from. A handshake begins with a byte with which no
HTTP request begins; it is looked at, and left, before anything is read.
"""

import asyncio
import errno
import logging
import re
import socket
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from machineshop.errors import InvalidRequest
from machineshop.http import error_response

log = logging.getLogger(__name__)

HANDSHAKE = b"\x16"
# How long a connection may say nothing, and how long a handshake may take.
FIRST_BYTE_SECONDS = 20.0
HANDSHAKE_SECONDS = 20.0
# Of the connections that wait to be accepted, so many at a time: the others in the loop have their turns too.
ACCEPTED_AT_ONCE = 100
# Without a free descriptor nothing can be accepted; some will be closed.
REST_SECONDS = 1.0
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
HOST = re.compile(r"[A-Za-z0-9._-]{1,255}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")

ProtocolFactory = Callable[[], asyncio.Protocol]


class KeyInTheClear(InvalidRequest):
    """{message}"""


class SpeaksHttps(InvalidRequest):
    """{message}"""


class Entrance:
    """Accepts connections on a socket, from when it is made until `close`.

    Args:
        listener: A socket that listens, and does not block.
        tls: The server's certificate.
        secure: Makes the protocol of a connection with TLS.
        plain: Makes the protocol of one without.
    """

    def __init__(
        self, listener: socket.socket, tls: ssl.SSLContext, secure: ProtocolFactory, plain: ProtocolFactory
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener, self._tls = listener, tls
        self._secure, self._plain = secure, plain
        self._greetings: set[asyncio.Task[None]] = set()
        self._resting: asyncio.TimerHandle | None = None
        self._open()

    def close(self) -> None:
        """Accept no more, and let go of those that have not begun yet."""
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._listener)
        for greeting in self._greetings:
            greeting.cancel()

    async def wait_closed(self) -> None:
        """Return once nothing is left of those."""
        await asyncio.gather(*self._greetings, return_exceptions=True)

    def _open(self) -> None:
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                log.warning("entrance.resting error=%s", error)
                self._loop.remove_reader(self._listener)
                self._resting = self._loop.call_later(REST_SECONDS, self._open)
                return
            connection.setblocking(False)
            greeting = self._loop.create_task(self._greet(connection))
            self._greetings.add(greeting)
            greeting.add_done_callback(self._greetings.discard)

    async def _greet(self, connection: socket.socket) -> None:
        """See what it speaks, and hand it to who understands that."""
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(FIRST_BYTE_SECONDS):
                first = await self._first_byte(connection)
            if first == HANDSHAKE:
                await self._loop.connect_accepted_socket(
                    self._secure, connection, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_SECONDS
                )
            elif first:
                await self._loop.connect_accepted_socket(self._plain, connection)
            else:
                connection.close()
        except (OSError, TimeoutError) as error:  # a failed handshake is an OSError too
            log.info("entrance.refused error=%s", error)
            connection.close()
        except BaseException:
            connection.close()
            raise

    async def _first_byte(self, connection: socket.socket) -> bytes:
        """The first byte, which stays to be read; empty where there is none before the end."""
        while True:
            try:
                return connection.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                await self._readable(connection)

    async def _readable(self, connection: socket.socket) -> None:
        ready = self._loop.create_future()
        self._loop.add_reader(connection, _set, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(connection)


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


class ToHttps:
    """What answers plain HTTP on a port for HTTPS.

    Who asks without a key is sent on. A key that came in the clear may have been read on its way: it must not work as
    if nothing were wrong, or nobody would ever notice.

    Args:
        base_url: Where to go, for those that do not say which host they asked for.
    """

    def __init__(self, base_url: str) -> None:
        self._host = urlsplit(base_url).netloc

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        host = request.headers.get("host", "")
        base_url = f"https://{host if HOST.fullmatch(host) else self._host}"
        await self._answer(request, base_url)(scope, receive, send)

    def _answer(self, request: Request, base_url: str) -> Response:
        if "authorization" in request.headers:
            return error_response(
                KeyInTheClear(
                    f"This server speaks HTTPS, and a key was sent to it in the clear: use {base_url}. Nothing was "
                    "done. Where others may have listened, revoke that key."
                )
            )
        path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
        query: bytes = request.scope["query_string"]
        location = base_url + (path + (b"?" + query if query else b"")).decode("latin-1")
        response = error_response(SpeaksHttps(f"This server speaks HTTPS: use {base_url}."))
        response.status_code = 308
        response.headers["Location"] = location
        return response
