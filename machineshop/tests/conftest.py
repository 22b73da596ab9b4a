"""What the platform's tests share: a store on disk, a project, a deployment, and jobs in any state."""

import asyncio
import functools
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import botocore.session
import pytest

from factory import ADMIN_KEY, AnyArtifact, Clock, Jobs, upkeep_of
from files.shop import Shop, open_shop
from machineshop.app import Platform
from machineshop.blobs import Storage
from machineshop.blobs import bucket as buckets
from machineshop.config import Settings, StorageUrl
from machineshop.models import Deployment, Identity
from machineshop.runtime.base import Capacity
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.keyring import KeyRing
from machineshop.services.leftovers import Leftovers
from machineshop.services.queue import QueueService
from machineshop.services.secrets import SecretService
from machineshop.services.upkeep import QueueUpkeep
from machineshop.services.volumes import VolumeService
from machineshop.store.database import Database
from migrated import migrated_database, migrated_sqlite
from object_storage import ObjectStorage

make_client = buckets._client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind, without rows."""
    return migrated_database(request.param, request, tmp_path)


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without rows on Postgres."""
    return migrated_database("postgres", request, tmp_path)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    database.start()
    yield database
    await asyncio.to_thread(database.close)


@pytest.fixture
def identity(database: Database, clock: Clock) -> IdentityService:
    return IdentityService(database, clock)


@pytest.fixture
async def admin(identity: IdentityService) -> Identity:
    return await identity.ensure_admin(ADMIN_KEY)


@pytest.fixture
def deployments(database: Database, clock: Clock) -> DeploymentService:
    return DeploymentService(database, AnyArtifact(), lambda: Capacity(2, 8, 0), frozenset(), clock)


@pytest.fixture
async def deployment(deployments: DeploymentService, admin: Identity) -> Deployment:
    return await deployments.create(
        admin.project.id, {"name": "hello", "image": "registry/ns/hello@sha256:1", "gpu_type": "none"}
    )


@pytest.fixture
def keys(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "secrets-key")


@pytest.fixture
async def secrets(database: Database, keys: KeyRing, deployments: DeploymentService, clock: Clock) -> SecretService:
    service = SecretService(database, keys, deployments, clock)
    await service.open()
    return service


@pytest.fixture
async def volumes(tmp_path: Path, database: Database, clock: Clock) -> AsyncIterator[VolumeService]:
    storage = Storage(tmp_path)
    yield VolumeService(database, Leftovers(database, storage, clock), lambda _: None, clock)
    await asyncio.to_thread(storage.close)


@pytest.fixture
async def queue(database: Database, deployments: DeploymentService, clock: Clock) -> AsyncIterator[QueueService]:
    service = QueueService(database, deployments, clock)
    yield service
    service.close()


@pytest.fixture
def upkeep(queue: QueueService) -> QueueUpkeep:
    return upkeep_of(queue)


@pytest.fixture
def jobs(queue: QueueService, deployment: Deployment) -> Jobs:
    return Jobs(queue, deployment)


@pytest.fixture
async def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Platform]:
    """A whole server on SQLite, in this process."""
    monkeypatch.setenv("JIG_CONTEXTS", str(tmp_path / "contexts.json"))
    (tmp_path / "data").mkdir()
    migrated_sqlite(tmp_path / "data")
    platform = Platform(Settings(data_dir=tmp_path / "data", port=0))
    await platform.start()
    yield platform
    await platform.stop(end_replicas=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by the superuser")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def bucket(objects: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> StorageUrl:
    """An empty place in it, and the environment in which it is found."""
    for name, value in objects.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(buckets, "_client", lambda _session, endpoint: _client_of(endpoint))
    return objects.make_place()


@functools.cache
def _client_of(endpoint: str | None) -> object:
    """botocore takes half a second to make one."""
    return make_client(botocore.session.get_session(), endpoint)


@pytest.fixture
async def shop(
    tmp_path: Path,
    clock: Clock,
    database: Database,
    identity: IdentityService,
    deployment: Deployment,
    queue: QueueService,
) -> AsyncIterator[Shop]:
    """Files and queue on a socket, on each database."""
    async with open_shop(tmp_path, clock, database, identity, deployment, queue) as shop:
        yield shop
