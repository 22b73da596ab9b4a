"""What the gateway's tests share: a gateway on a socket, behind the server's own protocol."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette

from factory import ADMIN_KEY, eventually
from gateway.caller import LIMITS, PREFIX, Caller, Replicas
from machineshop.config import GatewayLimits
from machineshop.front import Front
from machineshop.gateway.proxy import Gateway
from machineshop.models import Deployment
from machineshop.protocol import BoundedHttpProtocol
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.traffic import Traffic
from migrated import migrated_sqlite


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind of database is enough: the gateway only asks it who calls, and for what."""
    return migrated_sqlite(tmp_path)


@pytest.fixture
def limits() -> GatewayLimits:
    """The gateway's bounds; a test that wants others says so."""
    return LIMITS


@pytest.fixture
async def caller(
    identity: IdentityService, deployments: DeploymentService, deployment: Deployment, limits: GatewayLimits
) -> AsyncIterator[Caller]:
    replicas = Replicas()
    traffic = Traffic()
    gateway = Gateway(identity, deployments, replicas, traffic, limits)
    listener = socket.create_server(("127.0.0.1", 0))
    (route,) = gateway.routes()
    front = Front(Starlette(routes=[route]), route)
    config = uvicorn.Config(
        front, http=BoundedHttpProtocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    port = listener.getsockname()[1]
    base, key = f"http://127.0.0.1:{port}{PREFIX}", {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with aiohttp.ClientSession(base, headers=key) as session:
        yield Caller(port, session, gateway, replicas, deployment, traffic)
    server.should_exit = True
    await serving
    gateway.close()
