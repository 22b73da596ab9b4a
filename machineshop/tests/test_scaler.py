"""The loop that scales: real store, real queue, real decisions, and replicas that exist in memory alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from factory import Clock, Jobs
from machineshop.control.scaler import Scaler
from machineshop.control.scraper import FRESH_SECONDS, Scraper, value_of
from machineshop.models import Deployment, DeploymentConfig
from machineshop.runtime.base import Replica, ReplicaStatus
from machineshop.services.deployments import DeploymentService
from machineshop.services.queue import QueueService
from machineshop.services.scaling import ScalingService
from machineshop.services.scaling_policy import Policy, policy_of
from machineshop.services.traffic import Traffic
from machineshop.store import scaling as stored
from machineshop.store.database import Database

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

METRICS = """# HELP depth how deep
depth{side="left"} 3
depth{side="right"} 4 1700000000000
depths 100
other_depth 1
broken NaN
"""


class Replicas:
    """What runs, as a test says."""

    def __init__(self) -> None:
        self.all: list[Replica] = []

    async def observe(self) -> list[Replica]:
        return self.all


@pytest.fixture
def replicas() -> Replicas:
    return Replicas()


@pytest.fixture
def traffic(clock: Clock) -> Traffic:
    return Traffic(clock)


@pytest.fixture
async def scaler(
    database: Database, replicas: Replicas, traffic: Traffic, queue: QueueService, clock: Clock
) -> AsyncIterator[Scaler]:
    scraper = Scraper(clock)
    scaler = Scaler(database, replicas, traffic, scraper)  # type: ignore[arg-type]
    queue.dispatcher.on_pending.append(scaler.work_came)
    traffic.on_held(scaler.work_came)
    yield scaler
    await scraper.close()


async def _scaled(deployments: DeploymentService, deployment: Deployment, **fields: object) -> None:
    policy = {"metric": "QueueBacklogPerWorker", "target": 2, "idle_seconds": 30}
    changes = {"min_replicas": 0, "max_replicas": 4, "autoscaling": policy, **fields}
    await deployments.update(deployment.project_id, deployment.id, changes)


async def _replicas(database: Database, deployments: DeploymentService, deployment: Deployment) -> int:
    deployments.changed()
    return (await deployments.get(deployment.project_id, deployment.id)).replicas


async def test_a_job_wakes_a_deployment_that_sleeps_and_idleness_puts_it_to_sleep_again(
    scaler: Scaler, database: Database, deployments: DeploymentService, deployment: Deployment, jobs: Jobs, clock: Clock
) -> None:
    woken: list[int] = []
    scaler.on_work(lambda: woken.append(1))
    await _scaled(deployments, deployment)
    await scaler.run_once(clock.now)
    assert await _replicas(database, deployments, deployment) == 0

    for _ in range(5):
        await jobs.pending()
    assert woken == [1], "once is enough"
    await scaler.run_once(clock.now)
    assert await _replicas(database, deployments, deployment) == 3

    await jobs.queue.clear(deployment.project_id, deployment.name)
    await scaler.run_once(clock.now + 1)
    await scaler.run_once(clock.now + 30)
    assert await _replicas(database, deployments, deployment) == 3
    await scaler.run_once(clock.now + 32)
    assert await _replicas(database, deployments, deployment) == 0


async def test_a_held_request_wakes_it_too(
    scaler: Scaler,
    database: Database,
    deployments: DeploymentService,
    deployment: Deployment,
    traffic: Traffic,
    clock: Clock,
) -> None:
    woken: list[int] = []
    scaler.on_work(lambda: woken.append(1))
    await _scaled(deployments, deployment, autoscaling={})
    await scaler.run_once(clock.now)
    with traffic.request(deployment.id) as request:
        request.hold()
        assert woken == [1]
        await scaler.run_once(clock.now)
    assert await _replicas(database, deployments, deployment) == 1


async def test_every_decision_is_kept_with_its_inputs_and_explained(
    scaler: Scaler, database: Database, deployments: DeploymentService, deployment: Deployment, jobs: Jobs, clock: Clock
) -> None:
    await _scaled(deployments, deployment)
    for _ in range(3):
        await jobs.pending()
    await scaler.run_once(clock.now)
    await scaler.run_once(clock.now + 1)

    deployments.changed()
    found = await ScalingService(database, deployments, scaler).explain(deployment.project_id, deployment.name, 10)

    assert found.deployment.replicas == 2
    assert found.latest is not None
    assert found.latest.at == clock.now + 1
    (decision,) = found.decisions
    assert (decision.before, decision.replicas, decision.wanted) == (0, 2, 2)
    assert decision.inputs["signals"]["pending"] == 3
    assert decision.inputs["policy"]["target"] == 2
    assert "3 waiting" in decision.message


async def test_decisions_are_kept_up_to_a_bound(
    scaler: Scaler,
    database: Database,
    deployments: DeploymentService,
    deployment: Deployment,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "KEPT_DECISIONS", 3)
    for number in range(1, 7):
        await _scaled(deployments, deployment, min_replicas=number, max_replicas=number)
        await scaler.run_once(clock.now + number)

    kept = await database.read(stored.list_decisions, deployment.id, 10)

    assert [decision.replicas for decision in kept] == [6, 5, 4]


async def test_what_the_bounds_force_is_told_as_a_change(
    scaler: Scaler, database: Database, deployments: DeploymentService, deployment: Deployment, clock: Clock
) -> None:
    for number in (1, 3):
        await _scaled(deployments, deployment, min_replicas=number, max_replicas=4, autoscaling={})
        await scaler.run_once(clock.now + number)

    kept = await database.read(stored.list_decisions, deployment.id, 10)

    assert [(decision.before, decision.replicas) for decision in kept] == [(1, 3), (0, 1)]


async def test_scaling_makes_no_revision_and_a_change_meanwhile_does_not_undo_it(
    scaler: Scaler, database: Database, deployments: DeploymentService, deployment: Deployment, jobs: Jobs, clock: Clock
) -> None:
    await _scaled(deployments, deployment)
    for _ in range(8):
        await jobs.pending()
    await scaler.run_once(clock.now)
    changed = await deployments.update(deployment.project_id, deployment.id, {"description": "x", "max_replicas": 3})
    assert changed.revision_number == 1
    assert await _replicas(database, deployments, deployment) == 3
    await deployments.update(deployment.project_id, deployment.id, {"max_replicas": 4})
    assert await _replicas(database, deployments, deployment) == 4


async def test_a_metric_of_their_own_is_asked_of_the_replicas(
    scaler: Scaler,
    database: Database,
    deployments: DeploymentService,
    deployment: Deployment,
    replicas: Replicas,
    clock: Clock,
) -> None:
    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(text=METRICS)

    runner = await _serving({"/metrics": metrics})
    policy = {"metric": "CustomMetric", "custom_metric_name": "depth", "target": 2}
    await _scaled(deployments, deployment, min_replicas=1, autoscaling=policy)
    replicas.all = [_ready("r", deployment, runner, clock)]
    async with asyncio.timeout(60):
        while await _replicas(database, deployments, deployment) < 2:
            await scaler.run_once(clock.now)
            await asyncio.sleep(0.01)
    latest = scaler.latest(deployment.id)
    assert latest is not None
    assert latest.inputs["signals"]["custom"] == 7
    await runner.cleanup()


async def _serving(handlers: dict[str, Handler]) -> web.AppRunner:
    app = web.Application()
    for path, handler in handlers.items():
        app.router.add_get(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


def _ready(replica_id: str, deployment: Deployment, runner: web.AppRunner, clock: Clock) -> Replica:
    return Replica(
        id=replica_id,
        deployment_id=deployment.id,
        revision_id=deployment.revision_id,
        image="x",
        status=ReplicaStatus.RUNNING,
        port=runner.addresses[0][1],
        created_at=clock.now,
        ready_since=clock.now,
    )


async def test_a_redirect_is_no_value_and_is_not_followed(deployment: Deployment, clock: Clock) -> None:
    asked: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPFound("/elsewhere")

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text=METRICS)

    runner = await _serving({"/metrics": redirect, "/elsewhere": elsewhere})
    replica = _ready("r", deployment, runner, clock)
    scraper = Scraper(clock)
    async with asyncio.timeout(60):
        while len(asked) < 3:  # asked again: an answer to the first has been taken in
            clock.now += FRESH_SECONDS
            assert scraper.mean("depth", [replica]) is None
            await asyncio.sleep(0.01)
    assert set(asked) == {"/metrics"}
    await scraper.close()
    await runner.cleanup()


async def test_metrics_that_come_in_pieces_are_read_to_their_end_and_no_connection_stays(
    deployment: Deployment, clock: Clock
) -> None:
    kept: list[bool] = []

    async def metrics(request: web.Request) -> web.StreamResponse:
        kept.append(request.keep_alive)
        answer = web.StreamResponse()
        await answer.prepare(request)
        for line in METRICS.splitlines(keepends=True):
            await answer.write(line.encode())
            await asyncio.sleep(0)  # each is a piece of its own
        return answer

    runner = await _serving({"/metrics": metrics})
    scraper = Scraper(clock)
    replica = _ready("r", deployment, runner, clock)
    async with asyncio.timeout(60):
        while (mean := scraper.mean("depth", [replica])) is None:
            await asyncio.sleep(0.01)
    assert mean == value_of(METRICS, "depth")
    assert kept == [False], "a replica with one hand has that one free again"
    await scraper.close()
    await runner.cleanup()


async def test_numbers_out_of_all_proportion_keep_no_other_deployment_from_its_turn(
    scaler: Scaler, database: Database, deployments: DeploymentService, deployment: Deployment, jobs: Jobs, clock: Clock
) -> None:
    # Older than the bound on it, or past it in another way: what is stored is not trusted.
    policy = {"profile": "QueueBacklogPerWorker", "targetValue": 1e-308}
    await _scaled(deployments, deployment, autoscaling=policy)
    await jobs.pending()
    await scaler.run_once(clock.now)
    assert await _replicas(database, deployments, deployment) == 1


async def test_a_deployment_that_fails_is_logged_once_and_the_others_have_their_turn(
    scaler: Scaler,
    database: Database,
    deployments: DeploymentService,
    deployment: Deployment,
    jobs: Jobs,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = {"name": "broken", "image": "registry/ns/broken@sha256:1", "gpu_type": "none"}
    broken = await deployments.create(deployment.project_id, fields)
    await _scaled(deployments, deployment)
    await jobs.pending()

    def failing(config: DeploymentConfig) -> Policy:
        if config.name == "broken":
            raise OverflowError("cannot convert float infinity to integer")
        return policy_of(config)

    monkeypatch.setattr("machineshop.control.scaler.policy_of", failing)
    await scaler.run_once(clock.now)
    await scaler.run_once(clock.now + 1)
    assert await _replicas(database, deployments, deployment) == 1
    (record,) = [record for record in caplog.records if "deployment.failed" in record.message]
    assert broken.id in record.message


@pytest.mark.parametrize(("name", "value"), [("depth", 7.0), ("depths", 100.0), ("dep", None), ("broken", None)])
def test_a_metric_is_summed_over_its_labels(name: str, value: float | None) -> None:
    assert value_of(METRICS, name) == value


def test_a_sum_that_is_no_number_is_no_value() -> None:
    assert value_of('q{a="1"} 1e308\nq{a="2"} 1e308\n', "q") is None
