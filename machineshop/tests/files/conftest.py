"""Object storage on a socket."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from factory import Clock
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
