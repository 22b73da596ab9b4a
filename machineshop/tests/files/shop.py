"""Queue and files on one store, served on a real socket, and replicas that upload what their jobs make."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import uvicorn
from sqlalchemy import Connection
from starlette.applications import Starlette

from factory import ADMIN_KEY, Clock, Jobs, eventually
from machineshop.api import files as files_api
from machineshop.api import multipart as multipart_api
from machineshop.api import volumes as volumes_api
from machineshop.api.endpoint import Api
from machineshop.blobs import Storage
from machineshop.models import Claim, Deployment, Worker
from machineshop.services.files import FileService
from machineshop.services.identity import IdentityService
from machineshop.services.multipart import MultipartService
from machineshop.services.queue import QueueService
from machineshop.services.volume_downloads import VolumeDownloads
from machineshop.services.volume_files import VolumeContents
from machineshop.services.volume_removal import VolumeRemoval
from machineshop.services.volume_uploads import VolumeUploads
from machineshop.services.volumes import VolumeService
from machineshop.states import JobVerb
from machineshop.store.database import Database
from machineshop.store.moves import Holder

LIMIT_BYTES = 8 * 1024 * 1024
CLAIM_SECONDS = 90


class Shop:
    """The services, the address at which files are served, and clients."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        database: Database,
        identity: IdentityService,
        deployment: Deployment,
        queue: QueueService,
        storage: Storage | None = None,
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.database = database
        self.identity = identity
        self.deployment = deployment
        self.queue = queue
        self.jobs = Jobs(queue, deployment)
        self.upkeep = self.jobs.upkeep
        self.host = ""
        self.storage = storage or Storage(folder)
        self.files = self.new_service()
        self.multipart = MultipartService(
            database, self.storage, self.files, lambda: f"http://{self.host}", clock=clock, limit_bytes=LIMIT_BYTES
        )
        self.volumes = VolumeService(database, self.files.leftovers, lambda _: None, clock)
        self.removal = VolumeRemoval(database, self.files.leftovers)
        self.contents = VolumeContents(database, self.storage.blobs, clock)
        uploads = VolumeUploads(database, self.storage.blobs, self.files.leftovers, clock)
        downloads = VolumeDownloads(database, self.storage.blobs)
        api = Api(identity)
        self.application = Starlette(
            routes=[
                *multipart_api.routes(api, self.multipart),
                *volumes_api.routes(api, self.volumes, uploads, downloads),
                *files_api.routes(api, self.files),
            ]
        )
        self._clients: list[httpx.AsyncClient] = []

    def new_service(self) -> FileService:
        """As another start of the server makes one."""
        return FileService(
            self.database, self.storage, lambda: f"http://{self.host}", clock=self.clock, limit_bytes=LIMIT_BYTES
        )

    def client(self, key: str | None = ADMIN_KEY) -> httpx.AsyncClient:
        """A client with a key: the admin's unless another is given."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        client = httpx.AsyncClient(base_url=f"http://{self.host}", headers=headers, timeout=60, verify=False)
        self._clients.append(client)
        return client

    async def replica(self, replica_id: str, deployment: Deployment | None = None) -> "Replica":
        """A replica with a worker key of its own."""
        of = deployment or self.deployment
        key = await self.identity.create_worker_key(of.project_id, of.id, replica_id)
        return Replica(self, replica_id, of, self.client(key), self.client(None))

    async def read(self, name: str) -> bytes | None:
        """What a user gets under a name."""
        client = self._clients[0] if self._clients else self.client()
        answer = await client.get(f"/v1/storage/{quote(name)}", headers={"Authorization": f"Bearer {ADMIN_KEY}"})
        assert answer.status_code in {200, 404}, answer.text
        return answer.content if answer.status_code == 200 else None

    async def remove_gone(self) -> int:
        """What the loop does after a volume was deleted."""
        return await self.removal.run_once(self.clock.now)

    async def clean(self) -> int:
        """What the loop does each minute."""
        return await self.files.clean(self.clock.now) + await self.multipart.clean(self.clock.now)

    def blobs(self) -> set[str]:
        """The keys of the blobs on disk."""
        return {str(path.relative_to(self.folder / "blobs")) for path in self._left("blobs/files")}

    def uploads(self) -> int:
        """How many uploads are under way."""
        return len(self._left("uploads"))

    async def rows(self) -> set[str]:
        """The keys of the blobs that the store knows."""
        return await self.database.read(_blob_keys)

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()
        await asyncio.to_thread(self.storage.close)

    def _left(self, folder: str) -> list[Path]:
        return [path for path in (self.folder / folder).rglob("*") if path.is_file()]


class Replica:
    """A worker with the key of its replica."""

    def __init__(
        self,
        shop: Shop,
        replica_id: str,
        deployment: Deployment,
        client: httpx.AsyncClient,
        stranger: httpx.AsyncClient,
    ) -> None:
        self.client = client
        self.worker = Worker(hostname=replica_id, replica_id=replica_id, claim_timeout_seconds=CLAIM_SECONDS)
        self.holder = Holder(deployment_id=deployment.id, replica_id=replica_id)
        self._shop = shop
        self._jobs = Jobs(shop.queue, deployment)
        self._stranger = stranger

    async def claim(self) -> Claim:
        """Take the next job."""
        claim = await self._jobs.claim(self.worker)
        assert claim is not None
        return claim

    async def take_new(self) -> Claim:
        """Take a job that has just been submitted."""
        await self._jobs.pending()
        return await self.claim()

    async def ask(self, claim: Claim, name: str, **fields: Any) -> httpx.Response:
        """Ask for an upload's address, with the token."""
        told = {"filename": output(claim, name), "request_id": claim.job.id, "attempt_token": claim.token}
        return await self.client.post("/v1/storage/upload-request", json=told | fields)

    async def url(self, claim: Claim, name: str) -> str:
        answer = await self.ask(claim, name)
        assert answer.status_code == 200, answer.text
        url: str = answer.json()["upload_url"]["url"]
        return url

    async def upload(self, claim: Claim, name: str, content: bytes) -> None:
        """Upload a file of a job."""
        answer = await self.put(await self.url(claim, name), content)
        assert answer.status_code == 200, answer.text

    async def put(self, url: str, content: bytes) -> httpx.Response:
        """Put bytes to a signed URL, without a key."""
        return await self._stranger.put(url, content=content)

    async def begin_upload(self, claim: Claim, name: str, content: bytes) -> "SlowUpload":
        """An upload that has begun and waits for its last bytes."""
        upload = SlowUpload(self._stranger, await self.url(claim, name), content)
        before = self._shop.uploads()
        upload.start()
        await eventually(lambda: self._shop.uploads() > before)
        return upload

    async def say(self, verb: JobVerb, claim: Claim) -> None:
        """Say something of a job."""
        holder = msgspec.structs.replace(self.holder, token=claim.token)
        await self._jobs.say(verb, claim.job.id, holder)

    async def finish(self, claim: Claim) -> None:
        await self.say(JobVerb.FINISH, claim)


class SlowUpload:
    """A PUT whose last bytes wait for a word."""

    def __init__(self, client: httpx.AsyncClient, url: str, content: bytes) -> None:
        self._client = client
        self._url = url
        self._content = content
        self._go_on = asyncio.Event()
        self._task: asyncio.Task[httpx.Response] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._client.put(self._url, content=self._parts()))

    async def end(self) -> httpx.Response:
        """Send the rest; what the server answers."""
        assert self._task is not None
        self._go_on.set()
        return await self._task

    async def _parts(self) -> AsyncIterator[bytes]:
        half = len(self._content) // 2
        yield self._content[:half]
        await self._go_on.wait()
        yield self._content[half:]


def output(claim: Claim, name: str) -> str:
    """What a job's file is called."""
    return f"{claim.job.id}-{name}"


def _blob_keys(conn: Connection) -> set[str]:
    rows = conn.exec_driver_sql("SELECT blob_key FROM files UNION ALL SELECT blob_key FROM attempt_files")
    return set(rows.scalars())


@asynccontextmanager
async def open_shop(
    folder: Path,
    clock: Clock,
    database: Database,
    identity: IdentityService,
    deployment: Deployment,
    queue: QueueService,
    storage: Storage | None = None,
) -> AsyncIterator[Shop]:
    """Serve files on a free port."""
    shop = Shop(folder, clock, database, identity, deployment, queue, storage)
    listener = socket.create_server(("127.0.0.1", 0))
    shop.host = f"127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(shop.application, log_level="warning", lifespan="off", http="httptools")
    config.load()
    http = uvicorn.Server(config)
    http.lifespan = config.lifespan_class(config)
    await http.startup([listener])
    try:
        yield shop
    finally:
        http.force_exit = True
        await http.shutdown([listener])
        await shop.close()
