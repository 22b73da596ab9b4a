"""The composition root: builds the store, the runtime, the services, the loops and the ASGI application.

`Platform.start` and `Platform.stop` are the order in which they come and go, with the reasons.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from machineshop import __version__
from machineshop.api import deployments as deployments_api
from machineshop.api import files as files_api
from machineshop.api import identity as identity_api
from machineshop.api import images as images_api
from machineshop.api import queue as queue_api
from machineshop.api import work as work_api
from machineshop.api.endpoint import Api
from machineshop.blobs import Storage
from machineshop.config import Settings, check, contexts_path
from machineshop.contexts import leave_context, write_private
from machineshop.control.loop import Loop
from machineshop.control.reclaimer import Reclaimer
from machineshop.control.reconciler import PlatformWatcher, Reconciler
from machineshop.datadir import DataDir, DataDirUnusable
from machineshop.errors import MachineshopError, MethodNotAllowed, NotFound
from machineshop.front import Front
from machineshop.gateway.proxy import Gateway
from machineshop.http import error_response, json_response
from machineshop.protocol import BoundedHttpProtocol, raise_open_files_limit
from machineshop.registry import app as registry_app
from machineshop.runtime.base import ArtifactKind, ReplicaStatus
from machineshop.runtime.process import ProcessRuntime
from machineshop.services.deployments import DeploymentService
from machineshop.services.files import FileService
from machineshop.services.identity import IdentityService, new_key
from machineshop.services.queue import QueueService
from machineshop.services.registry import RegistryService
from machineshop.store.database import Database, sqlite_url
from machineshop.store.schema import migrate

log = logging.getLogger(__name__)

RECONCILE_SECONDS = 1.0
RECLAIM_SECONDS = 1.0
CLEAN_SECONDS = 60.0
# How long replicas may take to finish what they have in hand when the server is stopped from its terminal.
STOP_GRACE_SECONDS = 10.0
# How long open answers (followed logs, streams) may take after that.
CONNECTIONS_GRACE_SECONDS = 5


class PortTaken(MachineshopError):
    """The server cannot listen on {host}:{port}: {cause}. Choose another address with --host and --port."""


class Platform:
    """Everything that one server process runs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = check(settings)
        self.data_dir = DataDir(settings.data_dir)
        self.made_admin_key: str | None = None
        self.context_name: str | None = None
        self._address_file = self.data_dir.path / "server.json"

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            MachineshopError: Something that the platform needs is not to be had; the message says what to do.
        """
        self.data_dir.open()
        self.socket = _listen(self.settings.host, self.settings.port or self._last_port())
        self.base_url = self.settings.public_url or f"http://{_reachable(self.settings.host)}:{self.port}"
        self.build()
        self.database.start()
        self.admin_key = self._admin_key()
        await self.identity.ensure_admin(self.admin_key)
        await self.gateway.start()
        # The runtime finds its replicas before the first request asks for them.
        await self.runtime.start()
        await self._start_server()
        for loop in self.loops:
            loop.start()
        self.context_name = leave_context(contexts_path(), self.base_url, self.admin_key)
        write_private(self._address_file, json.dumps({"pid": os.getpid(), "base_url": self.base_url}) + "\n")

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        port: int = self.socket.getsockname()[1]
        return port

    async def running_replicas(self) -> int:
        """How many replicas run now."""
        return sum(replica.status is ReplicaStatus.RUNNING for replica in await self.runtime.observe())

    async def stop(self, *, end_replicas: bool) -> None:
        """End in the order in which things need one another.

        Args:
            end_replicas: Drain and end them; otherwise they run on, and the next start adopts them.
        """
        for loop in self.loops:  # nothing may start replicas again
            await loop.stop()
        if end_replicas:  # while the API still answers, so that workers can deliver what they finish
            await self.runtime.stop_all(STOP_GRACE_SECONDS)
        self.queue.close()  # ends the long polls
        self._server.should_exit = True
        await asyncio.gather(self._serving, return_exceptions=True)
        await self.gateway.close()
        await self.runtime.close()
        await asyncio.to_thread(self.storage.close)
        await asyncio.to_thread(self.database.close)
        self.data_dir.close()

    def build(self) -> None:
        """Put everything together without starting any of it; the data directory must be open."""
        url = self.settings.database_url or sqlite_url(self.data_dir.database)
        migrate(url)
        self.database = Database(url)
        self.database.claim_for_one_server()
        self.identity = IdentityService(self.database)
        self.storage = Storage(self.data_dir.path)
        self.registry = RegistryService(self.database, self.storage, lambda: self.base_url)
        self.files = FileService(self.database, self.storage, lambda: self.base_url)
        self.deployments = DeploymentService(
            self.database,
            self.registry,
            lambda: self.runtime.capacity(),  # noqa: PLW0108 - the runtime is built after its sources
            frozenset({ArtifactKind.BUNDLE}),
        )
        self.queue = QueueService(self.database, self.deployments)
        self.runtime = ProcessRuntime(
            self.data_dir.path / "runtime",
            bundles=self.registry,
            watcher=PlatformWatcher(self.identity, self.queue),
            platform_url=lambda: self.base_url,
        )
        self.gateway = Gateway(self.identity, self.deployments, self.runtime)
        reconcile = Loop("reconcile", Reconciler(self.database, self.runtime, self.queue).run_once, RECONCILE_SECONDS)
        self.deployments.on_change(reconcile.wake)
        self.loops = [
            reconcile,
            Loop("reclaim", Reclaimer(self.queue, self.runtime).run_once, RECLAIM_SECONDS),
            Loop("clean-registry", self.registry.clean, CLEAN_SECONDS),
            Loop("clean-queues", self.queue.clean, CLEAN_SECONDS),
            Loop("clean-files", self.files.clean, CLEAN_SECONDS),
        ]
        self.asgi = self._application()

    def _application(self) -> Front:
        api = Api(self.identity)
        routes: list[BaseRoute] = [
            *work_api.routes(api, self.queue, time.time),
            *queue_api.routes(api, self.queue),
            *self.gateway.routes(),
            *registry_app.routes(self.registry, self.identity),
            *files_api.routes(api, self.files),
            *deployments_api.routes(api, self.deployments, self.runtime),
            *identity_api.routes(api),
            *images_api.routes(api, self.registry),
            Route("/health", _health, methods=["GET"]),
        ]
        handlers = {404: _not_found, 405: _not_allowed}
        return Front(Starlette(routes=routes, exception_handlers=handlers))

    def _last_port(self) -> int:
        """The free port of the last run, where it is still free: replicas that run on know the platform by it."""
        try:
            base_url = json.loads(self._address_file.read_text())["base_url"]
            port = urlsplit(base_url).port or 0
            _listen(self.settings.host, port).close()
        except (OSError, ValueError, KeyError, TypeError, PortTaken):
            return 0
        return port

    def _admin_key(self) -> str:
        """The key from the environment, or the one made at the first start."""
        if self.settings.admin_key:
            return self.settings.admin_key
        path = self.data_dir.admin_key
        try:
            if not path.exists():
                self.made_admin_key = new_key()
                write_private(path, self.made_admin_key + "\n")
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataDirUnusable(path=path, cause=getattr(error, "strerror", None) or str(error)) from error

    async def _start_server(self) -> None:
        raise_open_files_limit()
        config = uvicorn.Config(
            self.asgi,
            loop="uvloop",
            http=BoundedHttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=CONNECTIONS_GRACE_SECONDS,
            timeout_keep_alive=75,
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self.socket]), name="http-server")
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise MachineshopError
            await asyncio.sleep(0.002)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: stopping is the platform's affair."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(settings: Settings, announce: Callable[[Platform], None], say: Callable[[str], None]) -> None:
    """Serve until a signal.

    Ctrl-C and a terminal that closes (SIGHUP) come from a person who is done: they end the replicas too. SIGTERM comes
    from a service manager, and leaves them to the next start. A second signal ends the server at once.

    Args:
        settings: What was asked for.
        announce: Called once the platform serves.
        say: Called with a line for the person at the terminal.
    """
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # one that comes during the start waits for its end
        loop.add_signal_handler(number, received.put_nowait, number)
    platform = Platform(settings)
    await platform.start()
    gc.collect()
    gc.freeze()  # what the start made stays; looking through it again and again makes answers late
    announce(platform)
    end_replicas = await received.get() is not signal.SIGTERM
    if end_replicas and (running := await platform.running_replicas()):
        replicas = "1 replica finishes" if running == 1 else f"{running} replicas finish"
        say(f"Stopping: {replicas} what is in hand, {STOP_GRACE_SECONDS:.0f} s at most. Ctrl-C again leaves them.")
    stopping = asyncio.create_task(platform.stop(end_replicas=end_replicas))
    impatient = asyncio.create_task(received.get())
    await asyncio.wait([stopping, impatient], return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if stopping.done():
        stopping.result()
    else:
        say("Stopped at once. What still runs is adopted by the next start.")
        os._exit(130)


async def _health(_request: Request) -> Response:
    return json_response({"status": "healthy", "version": __version__})


async def _not_found(request: Request, _error: Exception) -> Response:
    return error_response(NotFound(what="route", id=request.url.path[:256]))


async def _not_allowed(request: Request, _error: Exception) -> Response:
    return error_response(MethodNotAllowed(method=request.method, path=request.url.path[:256]))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        raise PortTaken(host=host, port=port, cause=error.strerror or str(error)) from error
    listener.setblocking(False)
    return listener


def _reachable(host: str) -> str:
    """An address at which this machine reaches a server that listens on `host`."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - a comparison
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
