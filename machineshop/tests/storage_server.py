"""A platform of registry and files alone, on a real socket, for the tests of both."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import uvicorn
import uvloop
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
from machineshop.services.registry_access import RegistryAccess
from machineshop.store.database import Database
from migrated import migrated_sqlite

START_SECONDS = 90  # of a process, on a machine that does much else
FILE_LIMIT_BYTES = 1024 * 1024 * 1024


class StorageServer:
    """The services over one data directory, and the address at which they are served."""

    def __init__(
        self, data_directory: Path, clock: Callable[[], float], file_limit_bytes: int, storage: Storage | None = None
    ) -> None:
        self.data_directory = data_directory
        self.host = ""
        self.database = Database(migrated_sqlite(data_directory))
        self.identity = IdentityService(self.database)
        self.storage = storage or Storage(data_directory)
        self.registry = RegistryService(self.database, self.storage, lambda: self.base_url, clock)
        self.access = RegistryAccess(self.database, self.identity, clock)
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
            *registry.routes(self.registry, self.access, lambda: self.base_url),
            *images_api.routes(api, self.registry),
            *files_api.routes(api, self.files),
        ]
        return Starlette(routes=[route for route in routes if isinstance(route, Route)])

    async def key(self, project: str = "team", scope: Scope = Scope.DEVELOPER) -> str:
        """A new key of a project (and organization) of this slug."""
        if scope is Scope.WORKER:
            await self.identity.create_key(project, "owner", Scope.DEVELOPER)
            project_id = await self.project_id(project)
            return await self.identity.create_worker_key(project_id, "a-deployment", "a-replica")
        return (await self.identity.create_key(project, "test", scope))[1]

    async def project_id(self, project: str = "team") -> str:
        record, _ = await self.identity.create_key(project, "who", Scope.DEVELOPER)
        return record.project_id

    def client(self, key: str | None) -> httpx.AsyncClient:
        """A client with this key; the caller closes it."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.base_url, headers=headers, timeout=60, verify=False)

    def left_on_disk(self, folder: str) -> list[Path]:
        """The files under a folder of the data directory."""
        return sorted(path for path in (self.data_directory / folder).rglob("*") if path.is_file())


@asynccontextmanager
async def storage_server(
    data_directory: Path,
    clock: Callable[[], float],
    file_limit_bytes: int = FILE_LIMIT_BYTES,
    storage: Storage | None = None,
) -> AsyncIterator[StorageServer]:
    """Serve a data directory, and perhaps another storage than what lies in it, on a free port."""
    server = StorageServer(data_directory, clock, file_limit_bytes, storage)
    server.database.start()
    listener = socket.create_server(("127.0.0.1", 0))
    server.host = f"127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(server.application, log_level="warning", lifespan="off", http="httptools")
    config.load()
    http = uvicorn.Server(config)
    http.lifespan = config.lifespan_class(config)
    # Without its main loop, which ends only at its next tick.
    await http.startup([listener])
    try:
        yield server
    finally:
        http.force_exit = True
        await http.shutdown([listener])
        await asyncio.to_thread(server.storage.close)
        await asyncio.to_thread(server.database.close)


class ServerProcess:
    """The same in a process of its own, to be killed or measured."""

    def __init__(self, process: asyncio.subprocess.Process, host: str, key: str) -> None:
        self.process = process
        self.host = host
        self.key = key

    @property
    def client(self) -> httpx.AsyncClient:
        """A client with a key; the caller closes it."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=f"http://{self.host}", headers=headers, timeout=60, verify=False)

    def peak_memory_bytes(self) -> int:
        """The most that it ever had in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    async def kill(self) -> None:
        """End it as a crash would."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def server_process(data_directory: Path) -> AsyncIterator[ServerProcess]:
    """Serve a data directory from a process of its own."""
    await asyncio.to_thread(data_directory.mkdir, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, str(data_directory), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        host, key = (await process.stdout.readline()).decode().split()
    server = ServerProcess(process, host, key)
    try:
        yield server
    finally:
        await server.kill()


async def _main(data_directory: Path) -> None:
    async with storage_server(data_directory, time.time) as server:
        print(server.host, await server.key(), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1])))
