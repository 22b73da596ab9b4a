"""A server that stops and starts again, and its replicas, on every runtime."""

import asyncio
import time

import pytest

from machineshop.runtime.base import ReplicaStatus
from machineshop.runtime.fake import Behaviour
from runtime.harness import World, one, print_and_see, ready


async def test_a_server_that_comes_back_late_still_lets_a_replica_let_go_of_its_job(world: World) -> None:
    at_work = world.spec(behaviour=Behaviour(has_job_in_hand=True), grace_period_seconds=300)
    await world.runtime.apply(at_work, 1)
    await ready(world.runtime, 1)
    stopping = asyncio.create_task(world.runtime.stop_all(2.0))
    await one(world.runtime, lambda r: r.draining)
    stopping.cancel()

    async def stay_away() -> None:
        await asyncio.sleep(2.1)

    await world.restart_server(stay_away)
    ended = await one(world.runtime, lambda r: r.status is ReplicaStatus.TERMINATED)
    assert (ended.reason, ended.exit_code) == ("Completed", 0)


async def test_replicas_outlive_the_server_and_are_adopted(world: World) -> None:
    await world.runtime.apply(world.spec(), 2)
    before = await ready(world.runtime, 2)
    await world.restart_server()
    after = await world.runtime.observe()
    assert sorted(after, key=lambda r: r.id) == sorted(before, key=lambda r: r.id)
    await world.runtime.apply(world.spec(), 2)
    assert world.runtime.run_once(time.time()) == []
    assert [event for event, _ in world.watcher.events] == ["key", "key"]
    await print_and_see(world, before[0], "still here")


async def test_an_exit_while_the_server_was_away_is_seen_and_told(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)

    async def end() -> None:
        await world.end(replica, 7)

    await world.restart_server(end)
    waiting = await one(world.runtime, lambda r: r.status is ReplicaStatus.WAITING and r.exit_code is not None)
    assert (waiting.id, waiting.exit_code) == (replica.id, 7)
    await world.runtime.apply(world.spec(), 1)
    (again,) = await ready(world.runtime, 1)
    assert again.id == replica.id
    assert world.watcher.of(replica.id) == ["key", "exited", "key"]


async def test_a_drain_goes_on_after_a_restart_of_the_server(world: World) -> None:
    stubborn = world.spec(behaviour=Behaviour(ignores_terminate=True), grace_period_seconds=1)
    await world.runtime.apply(stubborn, 1)
    await ready(world.runtime, 1)
    await world.runtime.apply(stubborn, 0)
    await one(world.runtime, lambda r: r.draining)
    await world.restart_server()
    assert (await one(world.runtime, lambda r: r.status is ReplicaStatus.TERMINATED)).exit_code == 137


async def test_an_adopted_replica_of_an_old_revision_serves_until_it_is_replaced(world: World) -> None:
    await world.runtime.apply(world.spec("r1"), 1)
    await ready(world.runtime, 1, "r1")
    await world.restart_server()
    await world.runtime.apply(world.spec("r2", Behaviour(healthy=False)), 1)
    new = await one(world.runtime, lambda r: r.revision_id == "r2" and r.status is ReplicaStatus.RUNNING)
    assert (await one(world.runtime, lambda r: r.revision_id == "r1")).ready_since is not None
    await world.set_healthy(new, True)
    await ready(world.runtime, 1, "r2")


async def test_an_adopted_replica_of_an_old_revision_is_started_again_while_the_new_one_fails(world: World) -> None:
    old = world.spec("r1")
    await world.runtime.apply(old, 1)
    await ready(world.runtime, 1, "r1")
    await world.restart_server()
    await world.runtime.apply(world.spec("r2", Behaviour(healthy=False)), 1, older=[old])
    (adopted,) = await ready(world.runtime, 1, "r1")
    await world.end(adopted, 1)
    await one(world.runtime, lambda r: r.id == adopted.id and r.restarts > 0 and r.ready_since is not None)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with a job in hand"])
async def test_an_adopted_replica_that_looks_for_the_platform_elsewhere_is_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    monkeypatch.setattr("machineshop.runtime.draining.STRANDED_GRACE_SECONDS", 3.0)
    spec = world.spec(behaviour=Behaviour(has_job_in_hand=busy), grace_period_seconds=300)
    await world.runtime.apply(spec, 1)
    (stranded,) = await ready(world.runtime, 1)
    await world.restart_server(platform_url="http://127.0.0.1:8801")
    (seen,) = await world.runtime.observe()
    assert seen.ready_since is None
    assert seen.draining
    await world.runtime.apply(spec, 1)
    (new,) = await ready(world.runtime, 1)
    ended = await one(world.runtime, lambda r: r.id == stranded.id)
    why = "It was started with the platform at http://127.0.0.1:8799, which is now at http://127.0.0.1:8801."
    assert (ended.status, ended.message) == (ReplicaStatus.TERMINATED, f"{why} It was asked to end, and did.")
    await world.restart_server(platform_url="http://127.0.0.1:8801")
    assert [r.id for r in await ready(world.runtime, 1)] == [new.id]
