"""A worker's poll over HTTP, on a whole platform."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from factory import AnyArtifact, connected
from machineshop.app import Platform
from machineshop.runtime.base import Capacity
from machineshop.services.deployments import DeploymentService

HELLO = {"name": "hello", "image": "registry/ns/hello@sha256:1", "gpu_type": "none", "min_replicas": 0}
POLL: dict[str, Any] = {"model": "hello", "hostname": "test", "timeout": "0s"}


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    """With a key of the project of the deployment 'hello'."""
    async with connected(platform, platform.admin_key) as client:
        project_id = (await client.get("/v3/whoami")).json()["project"]["id"]
        deployments = DeploymentService(platform.parts.database, AnyArtifact(), lambda: Capacity(2, 8, 0), frozenset())
        await deployments.create(project_id, HELLO)
        yield client


async def test_a_poll_of_which_only_the_head_is_asked_for_takes_no_job(client: httpx.AsyncClient) -> None:
    job = await client.post("/v1/queue/submit", json={"model": "hello", "payload": {}})
    refused = await client.head("/internal/v1/queue/retrieve", params=POLL)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    taken = (await client.get("/internal/v1/queue/retrieve", params=POLL)).json()["data"]
    assert taken["request_id"] == job.json()["request_id"]
