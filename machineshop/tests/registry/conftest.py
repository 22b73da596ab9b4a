"""A registry on a socket, and somebody who pushes to it."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from factory import Clock
from pusher import Pusher
from storage_server import StorageServer, storage_server


@pytest.fixture
async def server(tmp_path: Path, clock: Clock) -> AsyncIterator[StorageServer]:
    async with storage_server(tmp_path, clock) as server:
        yield server


@pytest.fixture
async def client(server: StorageServer) -> AsyncIterator[httpx.AsyncClient]:
    """With a key of the organization 'team'."""
    async with server.client(await server.key("team")) as client:
        yield client


@pytest.fixture
def pusher(client: httpx.AsyncClient) -> Pusher:
    return Pusher(client)
