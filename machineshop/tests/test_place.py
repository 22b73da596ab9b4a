"""The place of a job in its queue, from the first to its start, and the route that tells it."""

from collections.abc import Iterable

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from factory import ADMIN_KEY, Clock, Jobs
from machineshop.api import job_status
from machineshop.api import queue as queue_api
from machineshop.api.endpoint import Api
from machineshop.api.job_view import job_view, place_view
from machineshop.front import Front
from machineshop.models import FairKey, Identity, Worker
from machineshop.runtime.base import Replica, ReplicaStatus
from machineshop.server import HttpServer
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.keyring import KeyRing
from machineshop.services.place import Places
from machineshop.services.signing import SigningService
from machineshop.services.waiting import Reason
from machineshop.services.webhooks import WebhookService
from machineshop.states import JobState
from machineshop.store.database import Database
from machineshop.store.moves import Holder


class Seen:
    """Stands for the runtime: what `observe` gives."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.asked: set[str | None] = set()
        """The deployments whose replicas were looked for; None: all."""

    async def observe(self, deployment_id: str | None = None) -> list[Replica]:
        self.asked.add(deployment_id)
        return [one for one in self.replicas if deployment_id in (None, one.deployment_id)]

    def add(self, jobs: Jobs, *, ready_since: float | None) -> None:
        self.replicas.append(
            Replica(
                id=f"r-{len(self.replicas)}",
                deployment_id=jobs.deployment.id,
                revision_id=jobs.deployment.revision_id,
                image="i",
                status=ReplicaStatus.RUNNING,
                created_at=0,
                port=1,
                ready_since=ready_since,
                draining=False,
            )
        )


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def finder(database: Database, deployments: DeploymentService, seen: Seen, jobs: Jobs, clock: Clock) -> Places:
    return Places(database, deployments, seen, jobs.queue.dispatcher.waiters, clock)


async def test_a_job_is_told_its_place_from_the_first_to_its_start(
    finder: Places, seen: Seen, jobs: Jobs, clock: Clock
) -> None:
    first, second = await jobs.pending(), await jobs.get((await jobs.pending()).id)
    place = await finder.find(second)
    assert (place.reason, place.position, place.ready_replicas) == (Reason.NO_REPLICA, 2, 0)
    seen.add(jobs, ready_since=1.0)
    claim = await jobs.claim()
    assert claim is not None
    assert claim.job.id == first.id
    place = await finder.find(second)
    assert (place.reason, place.position, place.ready_replicas, place.running) == (Reason.NEXT, 1, 1, 1)
    assert place.estimate is None
    await jobs.finish(first.id, Holder(token=claim.token))
    for _ in range(6):  # enough to say something
        taken = await jobs.claim() or await jobs.running()
        clock.now += 4.0
        await jobs.finish(taken.job.id, Holder(token=taken.token))
    await jobs.running()
    clock.now += 1.0
    waiting = [await jobs.get((await jobs.pending()).id) for _ in range(3)]
    place = await finder.find(waiting[2])
    assert (place.reason, place.position) == (Reason.ALL_BUSY, 3)
    view = place_view(place)
    assert view["estimate"]["from_jobs"] == 7
    assert place.estimate is not None
    assert place.estimate.start_at - clock.now == pytest.approx(11, abs=3)
    assert (await jobs.get(waiting[2].id)).state is JobState.PENDING
    assert seen.asked == {jobs.deployment.id}, "the replicas of others are not looked at"


@pytest.mark.parametrize(
    ("worker", "reason"),
    [(Worker(hostname="h", replica_id="r-gone"), Reason.NO_REPLICA), (Worker(hostname="outside"), Reason.NEXT)],
    ids=["a replica", "a worker from outside"],
)
async def test_a_replica_that_has_ended_since_its_last_job_is_not_counted_on(
    finder: Places, jobs: Jobs, worker: Worker, reason: Reason
) -> None:
    claim = await jobs.running(worker)
    await jobs.finish(claim.job.id, Holder(token=claim.token))
    assert (await finder.find(await jobs.pending())).reason is reason


async def test_a_key_at_its_cap_is_told_so(finder: Places, jobs: Jobs) -> None:
    await jobs.queue.change_settings(jobs.project_id, jobs.deployment.id, {}, {"acme": FairKey(max_running=1)})
    await jobs.pending(fair_key="acme")
    second = await jobs.pending(fair_key="acme")
    assert await jobs.claim() is not None
    place = await finder.find(second)
    assert (place.reason, place.message) == (
        Reason.KEY_AT_CAP,
        "Of the fair key 'acme' 1 job runs, and no more may.",
    )
    urgent = await jobs.pending(priority=1)
    other = await jobs.pending()
    assert (await finder.find(urgent)).reason is Reason.NEXT
    assert (await finder.find(other)).reason is Reason.BEHIND_HIGHER_PRIORITY


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_status_of_a_job_says_it_while_it_waits(
    identity: IdentityService,
    admin: Identity,
    finder: Places,
    database: Database,
    jobs: Jobs,
    keys: KeyRing,
    guarded: bool,
) -> None:
    """With a guard, the answer for a job that waits goes through that: another server may be the one that knows."""
    passed: list[str] = []

    def guard(routes: Iterable[Route]) -> list[Route]:
        passed.append("guarded")
        return list(routes)

    api = Api(identity)
    webhooks = WebhookService(database, SigningService(database, keys), job_view)
    status = job_status.handler(api, jobs.queue, finder, webhooks, guard if guarded else None)
    routes = queue_api.routes(api, jobs.queue, status)
    http = HttpServer("127.0.0.1", 0)
    await http.start(Front(Starlette(routes=routes)))
    job = await jobs.pending()
    params = {"model": jobs.deployment.name, "request_id": job.id}
    async with aiohttp.ClientSession(http.url(), headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as session:
        async with session.get("/v1/queue/status", params=params) as answer:
            assert (await answer.json())["queue"] == {
                "position": 1,
                "reason": "no_replica",
                "message": "No replica is ready (Updating: 0 of 1 replicas are ready; the next one is about to start).",
                "ready_replicas": 0,
                "running": 0,
                "estimate": None,
            }
        assert await jobs.claim() is not None
        async with session.get("/v1/queue/status", params=params) as answer:
            told = await answer.json()
            assert (told["status"], told["queue"]) == ("running", None)
    await http.stop()
    assert passed == ["guarded"] * guarded
