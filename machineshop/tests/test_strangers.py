"""A server that takes over ends what replicas of the server before it still hold, and leaves its own alone."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from factory import Jobs
from machineshop.control.duty import Duty
from machineshop.control.reconciler import PlatformWatcher, revision_spec
from machineshop.control.strangers import GRACE_SECONDS, Strangers
from machineshop.errors import LeaseLost, NotAuthenticated
from machineshop.models import Identity, Worker
from machineshop.runtime.base import ReplicaStatus
from machineshop.runtime.fake import Behaviour, FakeRuntime
from machineshop.services.identity import IdentityService
from machineshop.services.secrets import SecretService
from machineshop.services.traffic import Traffic
from machineshop.services.upkeep import QueueUpkeep
from machineshop.states import JobState


class Tenure:
    """Says what a test wants."""

    def __init__(self) -> None:
        self.held_seconds = GRACE_SECONDS

    def require(self) -> None:
        if not self.held_seconds:
            raise LeaseLost


@pytest.fixture
def tenure() -> Tenure:
    return Tenure()


@pytest.fixture
def watcher(identity: IdentityService, upkeep: QueueUpkeep, secrets: SecretService, tenure: Tenure) -> PlatformWatcher:
    return PlatformWatcher(identity, upkeep, secrets, tenure, Traffic())


@pytest.fixture
async def runtime(watcher: PlatformWatcher) -> AsyncIterator[FakeRuntime]:
    runtime = FakeRuntime(watcher)
    await runtime.start()
    yield runtime
    await runtime.stop_all(0)
    await runtime.close()


@pytest.fixture
def strangers(
    tenure: Tenure, identity: IdentityService, upkeep: QueueUpkeep, runtime: FakeRuntime, watcher: PlatformWatcher
) -> Strangers:
    return Strangers(tenure, identity, upkeep, runtime, watcher)


async def ready(runtime: FakeRuntime) -> str:
    """The id of the one replica that is ready."""
    async with asyncio.timeout(60):
        while True:
            for replica in await runtime.observe():
                if replica.ready_since is not None:
                    return replica.id
            await asyncio.sleep(0.01)


async def live(runtime: FakeRuntime) -> list[str]:
    return [r.id for r in await runtime.observe() if r.status is not ReplicaStatus.TERMINATED]


async def test_what_a_replica_of_another_server_holds_is_freed(
    strangers: Strangers, jobs: Jobs, runtime: FakeRuntime, identity: IdentityService, admin: Identity
) -> None:
    await runtime.apply(revision_spec(jobs.deployment), 1)
    mine = await ready(runtime)
    key = await identity.create_worker_key(admin.project.id, jobs.deployment.id, "theirs")
    held = await jobs.running(Worker(hostname="h", replica_id="theirs"))
    kept = await jobs.running(Worker(hostname="h", replica_id=mine))
    unknown = await jobs.running(Worker(hostname="somebody's own worker", claim_timeout_seconds=90))
    assert await strangers.run_once(0) == ["theirs"]
    freed = await jobs.get(held.job.id)
    assert (freed.state, freed.retries) == (JobState.PENDING, 1)
    assert (await jobs.get(kept.job.id)).state is JobState.RUNNING
    assert (await jobs.get(unknown.job.id)).state is JobState.RUNNING
    with pytest.raises(NotAuthenticated):
        await identity.authenticate(key)
    await identity.authenticate(runtime.engine.keys[mine])


async def test_they_have_time_to_finish_and_are_looked_at_once(
    strangers: Strangers, tenure: Tenure, jobs: Jobs
) -> None:
    await jobs.running(Worker(hostname="h", replica_id="theirs"))
    tenure.held_seconds = GRACE_SECONDS - 1
    assert await strangers.run_once(0) == []
    tenure.held_seconds = GRACE_SECONDS + 1
    assert await strangers.run_once(0) == ["theirs"]
    await jobs.running(Worker(hostname="h", replica_id="theirs"))
    tenure.held_seconds += 5
    assert await strangers.run_once(0) == []
    tenure.held_seconds = GRACE_SECONDS  # the lease was lost, and taken again
    assert await strangers.run_once(0) == ["theirs"]


async def test_no_replica_starts_without_the_lease(runtime: FakeRuntime, tenure: Tenure, jobs: Jobs) -> None:
    tenure.held_seconds = 0
    await runtime.apply(revision_spec(jobs.deployment), 1)
    async with asyncio.timeout(60):
        while not any("lease" in (replica.message or "") for replica in await runtime.observe()):
            await asyncio.sleep(0.01)
    assert runtime.engine.keys == {}


async def test_a_server_that_stands_down_ends_its_replicas_and_may_begin_again(
    runtime: FakeRuntime, jobs: Jobs
) -> None:
    duty = Duty([], runtime)
    spec = revision_spec(jobs.deployment)
    await runtime.apply(spec, 1)
    before = await ready(runtime)
    await duty.pause()
    assert await live(runtime) == [before], "nobody else has taken over yet"
    await duty.stand_down()
    async with asyncio.timeout(60):
        while await live(runtime):
            await asyncio.sleep(0.01)
    (ended,) = await runtime.observe()
    assert "Another server" in (ended.message or "")
    await runtime.apply(spec, 1)
    assert await ready(runtime) != before


async def test_a_busy_replica_of_a_server_that_stands_down_has_bounded_time(
    runtime: FakeRuntime, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.control.duty.STAND_DOWN_GRACE_SECONDS", 0.2)
    spec = msgspec.structs.replace(revision_spec(jobs.deployment), grace_period_seconds=300)
    runtime.engine.behaviours[spec.revision_id] = Behaviour(ignores_terminate=True)
    await runtime.apply(spec, 1)
    await ready(runtime)
    await Duty([], runtime).stand_down()
    async with asyncio.timeout(60):
        while await live(runtime):
            await asyncio.sleep(0.01)
