"""The `together` package from PyPI, unmodified: both its clients, by base URL and key alone, with and without `/v1`."""

import inspect
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import httpx
import pytest
import together
from together import AsyncTogether, Together
from together.types.beta import Deployment, DeploymentRevision, DeploymentRevisionEventList

from contract.older_worker import OlderWorker
from platform_process import PlatformProcess

UNKNOWN_JOB = "01900000-0000-7000-8000-000000000000"


class Client:
    """Either client, and the requests that it sent."""

    def __init__(self, kind: type[Together | AsyncTogether], base_url: str, key: str) -> None:
        self.requests: list[str] = []
        # Answers that do not have the declared types raise, instead of being passed on as they are.
        http_client: Any = self._http(kind)
        self.together: Any = kind(
            api_key=key, base_url=base_url, http_client=http_client, _strict_response_validation=True
        )
        # A deployment without GPU is of a type that the package's own types lack.
        self.lenient: Any = self.together.copy()
        self.lenient._strict_response_validation = False

    def _http(self, kind: type[Together | AsyncTogether]) -> httpx.Client | httpx.AsyncClient:
        async def record(request: httpx.Request) -> None:
            self.requests.append(request.url.path)

        if kind is AsyncTogether:
            return together.DefaultAsyncHttpxClient(event_hooks={"request": [record]})
        return together.DefaultHttpxClient(
            event_hooks={"request": [lambda request: self.requests.append(request.url.path)]}
        )

    @property
    def jig(self) -> Any:
        return self.lenient.beta.jig

    @property
    def queue(self) -> Any:
        return self.together.beta.jig.queue


async def settled(answer: Any) -> Any:
    """The answer of either client."""
    return await answer if inspect.isawaitable(answer) else answer


@pytest.fixture(
    params=[(Together, ""), (Together, "/v1"), (AsyncTogether, ""), (AsyncTogether, "/v1")],
    ids=["sync", "sync-v1", "async", "async-v1"],
)
async def client(platform: PlatformProcess, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    kind, suffix = request.param
    client = Client(kind, platform.base_url + suffix, platform.api_key)
    yield client
    await settled(client.together.close())


async def test_whoami(client: Client) -> None:
    identity = await settled(client.together.whoami())

    assert identity.type == "project_api_key"
    assert identity.project.slug == "default"
    assert identity.organization.name == "default"


async def test_lists_deployments(client: Client, echo: str) -> None:
    listed = await settled(client.jig.list())

    assert listed.object == "list"
    assert [each.name for each in listed.data if each.name == echo] == [echo]


async def test_retrieves_a_deployment_by_name_and_by_id(client: Client, echo: str, image: str) -> None:
    deployment = await settled(client.jig.retrieve(echo))

    assert (deployment.name, deployment.image, deployment.status) == (echo, image, "Ready")
    assert (deployment.ready_replicas, deployment.desired_replicas) == (1, 1)
    assert isinstance(deployment.created_at, datetime)
    [event] = deployment.replica_events.values()
    assert event.replica_status == "Running"
    assert event.replica_ready_since is not None
    assert event.image == image
    assert (await settled(client.jig.retrieve(deployment.id))).name == echo


def test_a_deployment_has_the_declared_types(api: httpx.Client, echo: str) -> None:
    raw = api.get(f"/v1/deployments/{echo}").json()

    assert raw.pop("gpu_type") == "none"
    assert Deployment.model_validate(raw).object == "deployment"


async def test_deploys_updates_and_destroys(client: Client, fields: dict[str, Any]) -> None:
    name = fields["name"]

    created = await settled(client.jig.deploy(**fields, description="first", autoscaling={}))
    assert (created.name, created.status, created.min_replicas) == (name, "ScaledToZero", 0)

    renamed = await settled(client.jig.update(name, description="second"))
    assert (renamed.description, renamed.id) == ("second", created.id)
    await settled(client.jig.update(name, environment_variables=[{"name": "COLOR", "value": "red"}]))

    strict = client.together.beta.jig
    events: DeploymentRevisionEventList = await settled(strict.list_revisions(name))
    assert [(event.event_number, event.action) for event in events.data] == [(2, "update"), (1, "create")]
    older = await settled(strict.list_revisions(name, before=2, limit=1))
    assert [event.event_number for event in older.data] == [1]
    for identifier in ("2", events.data[0].revision_id):
        revision: DeploymentRevision = await settled(strict.retrieve_revision(identifier, id=name))
        assert revision.revision_id == events.data[0].revision_id
        assert [(each.name, each.value) for each in revision.environment_variables] == [("COLOR", "red")]

    await settled(client.jig.destroy(name))
    with pytest.raises(together.NotFoundError):
        await settled(client.jig.retrieve(name))


async def test_submits_a_job_and_reads_its_result(client: Client, platform: PlatformProcess, echo: str) -> None:
    submitted = await settled(client.queue.submit(model=echo, payload={"n": 1}, priority=2, info={"who": "me"}))
    platform.finished(echo, submitted.request_id)

    job = await settled(client.queue.retrieve(model=echo, request_id=submitted.request_id))

    assert (job.status, job.outputs, job.inputs) == ("done", {"echo": {"n": 1}}, {"n": 1})
    assert (job.model, job.priority, job.retries, job.warnings) == (echo, 2, 0, [])
    assert job.info["who"] == "me"
    assert job.created_at <= job.claimed_at <= job.done_at


async def test_reads_why_a_job_failed(client: Client, platform: PlatformProcess, echo: str) -> None:
    submitted = await settled(client.queue.submit(model=echo, payload={"fail": "no such picture"}))
    platform.finished(echo, submitted.request_id)

    job = await settled(client.queue.retrieve(model=echo, request_id=submitted.request_id))

    assert (job.status, job.outputs) == ("failed", None)
    assert job.info["error"] == "ValueError: no such picture"
    assert job.error == "ValueError: no such picture"


async def test_counts_cancels_and_clears_what_waits(client: Client, worker: OlderWorker) -> None:
    model = worker.model
    first, second, *_ = [
        (await settled(client.queue.submit(model=model, payload={"n": number}))).request_id for number in range(4)
    ]
    assert worker.claim()["request_id"] == first

    metrics = await settled(client.queue.metrics(model=model))
    assert (metrics.messages_running, metrics.messages_waiting, metrics.total_jobs) == (1, 3, 4)

    assert (await settled(client.queue.cancel(model=model, request_id=second))).status == "canceled"
    assert (await settled(client.queue.clear(model=model))).canceled_count == 2
    metrics = await settled(client.queue.metrics(model=model))
    assert (metrics.messages_running, metrics.messages_waiting) == (1, 0)


@pytest.mark.parametrize("state", ["running", "done", "failed"])
async def test_a_cancel_that_comes_too_late_is_a_conflict_and_is_not_retried(
    client: Client, worker: OlderWorker, state: str
) -> None:
    submitted = await settled(client.queue.submit(model=worker.model, payload={}))
    worker.claim()
    assert worker.report(submitted.request_id, state).status_code == 200
    client.requests.clear()

    with pytest.raises(together.ConflictError) as raised:
        await settled(client.queue.cancel(model=worker.model, request_id=submitted.request_id))

    assert raised.value.response.json()["status"] == state
    assert len(client.requests) == 1
    assert (await settled(client.queue.retrieve(model=worker.model, request_id=submitted.request_id))).status == state


async def test_what_does_not_exist_is_not_found(client: Client, echo: str) -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: client.jig.retrieve("nowhere"),
        lambda: client.jig.update("nowhere", description="x"),
        lambda: client.jig.destroy("nowhere"),
        lambda: client.jig.retrieve_logs("nowhere"),
        lambda: client.jig.list_revisions("nowhere"),
        lambda: client.jig.retrieve_revision("99", id=echo),
        lambda: client.queue.submit(model="nowhere", payload={}),
        lambda: client.queue.metrics(model="nowhere"),
        lambda: client.queue.clear(model="nowhere"),
        lambda: client.queue.retrieve(model=echo, request_id=UNKNOWN_JOB),
        lambda: client.queue.cancel(model=echo, request_id=UNKNOWN_JOB),
    )
    for call in calls:
        with pytest.raises(together.NotFoundError) as raised:
            await settled(call())
        assert raised.value.response.json()["error"]["type"] == "not_found_error"


async def test_bad_values_are_bad_requests_that_name_the_field(client: Client, fields: dict[str, Any]) -> None:
    for wrong, param in (
        ({"name": "NO"}, "name"),
        ({"cpu": 0}, "cpu"),
        ({"gpu_type": "h100-80gb", "gpu_count": 1}, "gpu_count"),
        ({"image": "elsewhere/image:1"}, "image"),
    ):
        with pytest.raises(together.BadRequestError) as raised:
            await settled(client.jig.deploy(**{**fields, **wrong}))
        assert raised.value.response.json()["error"]["param"] == param


async def test_a_name_that_is_taken_is_a_conflict(client: Client, idle: str, image: str) -> None:
    with pytest.raises(together.ConflictError, match="already exists"):
        await settled(client.jig.deploy(name=idle, image=image, gpu_type="none", min_replicas=0))


async def test_a_wrong_key_is_an_authentication_error(client: Client, echo: str) -> None:
    stranger = client.lenient.copy(api_key="msk_not-a-key-of-this-platform")

    with pytest.raises(together.AuthenticationError):
        await settled(stranger.beta.jig.retrieve(echo))


async def test_a_key_without_the_right_is_refused(client: Client, worker_key: str) -> None:
    with pytest.raises(together.PermissionDeniedError):
        await settled(client.lenient.copy(api_key=worker_key).beta.jig.list())


async def test_a_payload_that_is_too_large_is_refused_at_once(client: Client, echo: str) -> None:
    with pytest.raises(together.APIStatusError, match="Upload large inputs as files") as raised:
        await settled(client.queue.submit(model=echo, payload={"text": "x" * 2_000_000}))

    assert raised.value.status_code == 413
    assert len(client.requests) == 1


async def test_reads_logs(client: Client, platform: PlatformProcess, echo: str) -> None:
    platform.finished(echo, platform.submit(echo, {"say": f"plain {id(client)}"}))
    [replica] = platform.deployment(echo)["replica_events"]

    assert f"plain {id(client)}" in (await settled(client.together.beta.jig.retrieve_logs(echo))).lines
    assert f"plain {id(client)}" in (await settled(client.jig.retrieve_logs(echo, replica_id=replica))).lines
    assert (await settled(client.jig.retrieve_logs(echo, replica_id="another"))).lines == []


async def test_reads_logs_as_a_raw_response_without_following_them(client: Client, echo: str) -> None:
    raw = await settled(client.jig.with_raw_response.retrieve_logs(echo, timeout=60))

    assert (await settled(raw.parse())).lines


async def test_follows_logs(client: Client, platform: PlatformProcess, echo: str) -> None:
    mark = f"followed {id(client)}"
    following = client.jig.with_streaming_response.retrieve_logs(echo, timeout=60)
    if isinstance(client.together, Together):
        with following as stream:
            platform.submit(echo, {"say": mark})
            assert any(mark in line for line in stream.iter_lines())
    else:
        async with following as stream:
            platform.submit(echo, {"say": mark})
            async for line in stream.iter_lines():
                if mark in line:
                    break
            else:
                pytest.fail("the stream ended without the line")
