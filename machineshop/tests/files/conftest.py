"""Object storage on a socket."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from factory import Clock
from files.shop import Shop, open_shop
from machineshop.models import Deployment
from machineshop.services.identity import IdentityService
from machineshop.services.queue import QueueService
from machineshop.store.database import Database
from storage_server import StorageServer, storage_server

LIMIT_BYTES = 8 * 1024 * 1024


@pytest.fixture
async def server(tmp_path: Path, clock: Clock) -> AsyncIterator[StorageServer]:
    async with storage_server(tmp_path, clock, LIMIT_BYTES) as server:
        yield server


@pytest.fixture
async def client(server: StorageServer) -> AsyncIterator[httpx.AsyncClient]:
    """With a key of the project 'team'."""
    async with server.client(await server.key("team")) as client:
        yield client


@pytest.fixture
async def stranger(server: StorageServer) -> AsyncIterator[httpx.AsyncClient]:
    """Without a key."""
    async with server.client(None) as client:
        yield client


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
