"""Webhooks on a whole platform: submit with a URL, work the job, be told at once; and what the routes answer."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from factory import AnyArtifact, connected
from machineshop.app import Platform
from machineshop.models import Scope
from machineshop.runtime.base import Capacity
from machineshop.services.deployments import DeploymentService
from webhooks.receiver import Receiver

Client = httpx.AsyncClient
HELLO = {"name": "hello", "image": "registry/ns/hello@sha256:1", "gpu_type": "none", "min_replicas": 0}


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[Client]:
    """With a key of the project of the deployment 'hello'."""
    async with connected(platform, platform.admin_key) as client:
        project_id = (await client.get("/v3/whoami")).json()["project"]["id"]
        deployments = DeploymentService(platform.parts.database, AnyArtifact(), lambda: Capacity(2, 8, 0), frozenset())
        await deployments.create(project_id, HELLO)
        yield client


async def submit(client: Client, **fields: Any) -> httpx.Response:
    return await client.post("/v1/queue/submit", json={"model": "hello", "payload": {"n": 1}, **fields})


async def work(client: Client) -> None:
    """Take the next job and finish it."""
    poll: dict[str, str | int] = {"model": "hello", "hostname": "test", "timeout": "5s", "claim_timeout": 90}
    job = (await client.get("/internal/v1/queue/retrieve", params=poll)).json()["data"]
    result = {"model": "hello", "request_id": job["request_id"], "status": "done", "payload": {"answer": 42}}
    (await client.post("/internal/v1/videos/status", json=result)).raise_for_status()


async def test_a_job_is_told_and_what_was_told_is_shown(client: Client, receiver: Receiver) -> None:
    receiver.answering = receiver.status(500, 200, text="not yet")
    job_id = (await submit(client, webhook_url=receiver.url)).json()["request_id"]
    query = {"model": "hello", "request_id": job_id}
    assert (await client.get("/v1/queue/webhooks", params=query)).json() == {"object": "list", "data": []}
    assert (await client.get("/v1/queue/status", params=query)).json()["webhook"] is None
    await work(client)
    await receiver.until(1)
    (told,) = receiver.received
    secret = (await client.get("/v1/webhooks/secret")).json()["secret"]
    assert told.headers["webhook-signature"] == told.signature(secret)
    status = (await client.get("/v1/queue/status", params=query)).json()
    assert told.job == {name: value for name, value in status.items() if name in told.job}
    assert told.job["outputs"] == {"answer": 42}

    async def shown() -> dict[str, Any]:
        (webhook,) = (await client.get("/v1/queue/webhooks", params=query)).json()["data"]
        assert isinstance(webhook, dict)
        return webhook

    while not (webhook := await shown())["error"]:  # the answer is written down a moment later
        pass
    assert (webhook["attempt"], webhook["url"], webhook["tries"]) == (1, receiver.url, 1)
    assert webhook["state"] == "retrying"
    status = (await client.get("/v1/queue/status", params=query)).json()
    assert status["webhook"] == webhook
    assert webhook["error"] == "The receiver answered 500: not yet"
    assert webhook["delivered_at"] is None
    assert webhook["next_try_at"] > status["done_at"]


async def test_a_url_that_may_not_be_called_is_refused_at_submit(client: Client, platform: Platform) -> None:
    refused = await submit(client, webhook_url="http://10.0.0.5/hook")
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "webhook_url"
    assert "--webhook-network 10.0.0.5/32" in refused.json()["error"]["message"]
    own = await submit(client, webhook_url=f"{platform.base_url}/v1/queue/submit")
    assert "the platform itself" in own.json()["error"]["message"]
    jobs: list[dict[str, Any]] = [
        {"model": "hello", "payload": {}, "webhook_url": url} for url in ("https://example.com", "ftp://x")
    ]
    several = await client.post("/v1/queue/submit", json=jobs)
    assert several.json()["error"]["param"] == "[1].webhook_url"
    assert (await client.get("/v1/queue/metrics", params={"model": "hello"})).json()["total_jobs"] == 0


async def test_the_secret_is_shown_and_rotated(client: Client, platform: Platform) -> None:
    first = await client.get("/v1/webhooks/secret")
    assert first.headers["cache-control"] == "no-store"
    assert first.json()["secret"].startswith("whsec_")
    assert first.json()["previous_signs_until"] is None
    rotated = (await client.post("/v1/webhooks/secret/rotate")).json()
    assert rotated["secret"] != first.json()["secret"]
    assert rotated["previous_signs_until"] is not None
    assert (await client.get("/v1/webhooks/secret")).json() == rotated
    _, key = await platform.parts.identity.create_key("stranger", "key", Scope.DEVELOPER)
    async with connected(platform, key) as stranger:
        assert (await stranger.get("/v1/webhooks/secret")).json()["secret"] not in str(rotated)


async def test_a_worker_may_not_see_the_secret_and_a_stranger_sees_no_job(client: Client, platform: Platform) -> None:
    job_id = (await submit(client)).json()["request_id"]
    query = {"model": "hello", "request_id": job_id}
    missing = await client.get("/v1/queue/webhooks", params={**query, "request_id": "nothing"})
    assert missing.status_code == 404
    project_id = (await client.get("/v3/whoami")).json()["project"]["id"]
    worker_key = await platform.parts.identity.create_worker_key(project_id, "deployment", "replica")
    async with connected(platform, worker_key) as worker:
        assert (await worker.get("/v1/webhooks/secret")).status_code == 403
        assert (await worker.post("/v1/webhooks/secret/rotate")).status_code == 403
    _, key = await platform.parts.identity.create_key("stranger", "key", Scope.DEVELOPER)
    async with connected(platform, key) as stranger:
        assert (await stranger.get("/v1/queue/webhooks", params=query)).status_code == 404
