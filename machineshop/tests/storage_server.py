"""A platform of registry and files alone, on a real socket, for the tests of both."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from machineshop import registry
from machineshop.api import files as files_api
from machineshop.api import images as images_api
from machineshop.api.endpoint import Api
from machineshop.blobs import Storage
from machineshop.models import Scope
from machineshop.services.files import FileService
from machineshop.services.identity import IdentityService
from machineshop.services.registry import RegistryService
from machineshop.store.database import Database, sqlite_url
from machineshop.store.schema import migrate

FILE_LIMIT_BYTES = 1024 * 1024 * 1024


class StorageServer:
    """The services over one data directory, and the address at which they are served."""

    def __init__(self, data_directory: Path, clock: Callable[[], float], file_limit_bytes: int) -> None:
        url = sqlite_url(data_directory / "machineshop.db")
        migrate(url)
        self.data_directory = data_directory
        self.host = ""
        self.database = Database(url)
        self.identity = IdentityService(self.database)
        self.storage = Storage(data_directory)
        self.registry = RegistryService(self.database, self.storage, lambda: self.base_url, clock)
        self.files = FileService(
            self.database, self.storage, lambda: self.base_url, clock=clock, limit_bytes=file_limit_bytes
        )

    @property
    def base_url(self) -> str:
        return f"http://{self.host}"

    @property
    def application(self) -> Starlette:
        api = Api(self.identity)
        routes = [
            *registry.routes(self.registry, self.identity),
            *images_api.routes(api, self.registry),
            *files_api.routes(api, self.files),
        ]
        return Starlette(routes=[route for route in routes if isinstance(route, Route)])

    async def key(self, project: str = "team", scope: Scope = Scope.PROJECT) -> str:
        """A new key of a project (and organization) of this slug."""
        if scope is Scope.WORKER:
            await self.identity.create_key(project, "owner", Scope.PROJECT)
            project_id = await self.project_id(project)
            return await self.identity.create_worker_key(project_id, "a-deployment", "a-replica")
        return (await self.identity.create_key(project, "test", scope))[1]

    async def project_id(self, project: str = "team") -> str:
        record, _ = await self.identity.create_key(project, "who", Scope.PROJECT)
        return record.project_id

    def client(self, key: str | None) -> httpx.AsyncClient:
        """A client with this key; the caller closes it."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.base_url, headers=headers, timeout=60)

    def left_on_disk(self, folder: str) -> list[Path]:
        """The files under a folder of the data directory."""
        return sorted(path for path in (self.data_directory / folder).rglob("*") if path.is_file())


@asynccontextmanager
async def storage_server(
    data_directory: Path, clock: Callable[[], float], file_limit_bytes: int = FILE_LIMIT_BYTES
) -> AsyncIterator[StorageServer]:
    """Serve a data directory on a free port."""
    server = StorageServer(data_directory, clock, file_limit_bytes)
    server.database.start()
    listener = socket.create_server(("127.0.0.1", 0))
    server.host = f"127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(server.application, log_level="warning", lifespan="off", http="httptools")
    http = uvicorn.Server(config)
    http.capture_signals = _leave_signals_alone  # type: ignore[method-assign]
    serving = asyncio.create_task(http.serve([listener]))
    try:
        async with asyncio.timeout(10):
            while not http.started:
                await asyncio.sleep(0.005)
        yield server
    finally:
        http.should_exit = True
        http.force_exit = True
        await serving
        listener.close()
        server.storage.close()
        await asyncio.to_thread(server.database.close)


@contextmanager
def _leave_signals_alone() -> Iterator[None]:
    """Ctrl-C is the test runner's."""
    yield
