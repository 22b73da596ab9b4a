"""The HTTP server: a socket, and uvicorn on it with our protocol, by TLS where it has a certificate."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from machineshop.entrance import Entrance, ToHttps
from machineshop.errors import MachineshopError
from machineshop.open_files import raise_open_files_limit
from machineshop.protocol import BoundedHttpProtocol

# All addresses of this machine.
EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - what people ask for
# How long open answers (followed logs, streams) may take once the server ends.
CONNECTIONS_GRACE_SECONDS = 5


class PortTaken(MachineshopError):
    """The server cannot listen on {host}:{port}: {cause}. Choose another address with --host and --port."""


class HttpServer:
    """One address to listen on.

    Args:
        host: A name or an address; 0.0.0.0 and :: are all of this machine's.
        port: 0: one that is free.
        tls: The certificate to serve HTTPS with; None: plain HTTP.

    Raises:
        PortTaken: It cannot be listened on.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self._tls = tls
        self._socket = listen(host, port)
        self._others: list[socket.socket] = []

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    def url(self, address: str | None = None) -> str:
        """The base URL at which it is reached.

        Args:
            address: By which others reach this machine, where `host` does not say it.
        """
        host = (address or "127.0.0.1") if self.host in EVERYWHERE else self.host
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    def listen_also(self, address: str) -> None:
        """Listen on the same port of another address of this machine, before `start`.

        Raises:
            PortTaken: It cannot be listened on.
        """
        self._others.append(listen(address, self.port))

    async def start(self, application: ASGIApp, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Begin to answer.

        Args:
            application: What answers.
            headers: What every answer carries.
        """
        raise_open_files_limit()
        config = _config(application, headers)
        self._server = _Server(config) if self._tls is None else _TlsServer(config, self._tls, self.url())
        self._serving = asyncio.create_task(
            self._server.serve(sockets=[self._socket, *self._others]), name="http-server"
        )
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise MachineshopError
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        """Answer what is open, for `CONNECTIONS_GRACE_SECONDS` at most, and end."""
        self._server.should_exit = True
        await asyncio.gather(self._serving, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: stopping is the platform's affair."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _TlsServer(_Server):
    """uvicorn on sockets that speak TLS, and tell who does not where to go."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext, url: str) -> None:
        super().__init__(config)
        self._tls = tls
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        plain = _config(ToHttps(self._url))
        plain.load()
        entrances = [
            Entrance(listener, self._tls, lambda: self._protocol(self.config), lambda: self._protocol(plain))
            for listener in sockets or ()
        ]
        self.servers = cast("list[asyncio.Server]", entrances)  # they can do what uvicorn does with them
        self.started = True

    def _protocol(self, config: uvicorn.Config) -> asyncio.Protocol:
        return BoundedHttpProtocol(config=config, server_state=self.server_state, app_state=self.lifespan.state)


def _config(application: ASGIApp, headers: Sequence[tuple[str, str]] = ()) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        loop="uvloop",
        http=BoundedHttpProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Whoever speaks to us is who we answer: no header of theirs says otherwise.
        proxy_headers=False,
        headers=list(headers),
        timeout_graceful_shutdown=CONNECTIONS_GRACE_SECONDS,
        timeout_keep_alive=75,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        PortTaken: It cannot be had.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PortTaken(host=host, port=port, cause=error.strerror or str(error)) from error
    listener.setblocking(False)
    return listener
