"""Replicas that are asked to end, on every runtime."""

import time

from machineshop.runtime.base import ReplicaStatus
from machineshop.runtime.fake import Behaviour
from runtime.harness import World, eventually, one, ready


async def test_a_replica_that_served_gets_nothing_new_for_a_moment_before_it_is_asked_to_end(world: World) -> None:
    world.runtime.draining.leave_seconds = 3600.0
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    await world.runtime.apply(world.spec(), 0)
    leaving = await one(world.runtime, lambda r: r.draining)
    assert (leaving.status, leaving.ready_since, leaving.reason) == (ReplicaStatus.RUNNING, None, "Draining")
    assert world.watcher.left == [replica.id]
    await world.restart_server()
    await one(world.runtime, lambda r: r.status is ReplicaStatus.TERMINATED and r.reason == "Completed")


async def test_a_replica_that_ignores_its_end_is_killed_after_its_grace_period(world: World) -> None:
    stubborn = world.spec(behaviour=Behaviour(ignores_terminate=True), grace_period_seconds=1)
    await world.runtime.apply(stubborn, 1)
    (replica,) = await ready(world.runtime, 1)
    await world.runtime.apply(stubborn, 0)
    draining = await one(world.runtime, lambda r: r.draining)
    assert draining.status is ReplicaStatus.RUNNING
    ended = await one(world.runtime, lambda r: r.status is ReplicaStatus.TERMINATED)
    assert (ended.reason, ended.exit_code) == ("Error", 137)
    assert "grace period of 1 s" in (ended.message or "")
    assert (ended.ended_at or 0) - (draining.started_at or 0) >= 1.0
    assert world.watcher.of(replica.id) == ["key", "exited"]


async def test_stopping_all_takes_no_longer_than_it_may(world: World) -> None:
    await world.runtime.apply(world.spec(behaviour=Behaviour(ignores_terminate=True), grace_period_seconds=300), 2)
    await ready(world.runtime, 2)
    began = time.monotonic()
    await world.runtime.stop_all(0.5)
    assert time.monotonic() - began < 30
    replicas = await world.runtime.observe()
    assert {(r.status, r.reason, r.exit_code) for r in replicas} == {(ReplicaStatus.TERMINATED, "Error", 137)}
    assert {r.message for r in replicas} == {"It did not end within its grace period of 0.5 s and was killed."}


async def test_stopping_all_leaves_a_replica_the_time_to_let_go_of_its_job(world: World) -> None:
    at_work = world.spec(behaviour=Behaviour(has_job_in_hand=True), grace_period_seconds=300)
    await world.runtime.apply(at_work, 1)
    await ready(world.runtime, 1)
    began = time.monotonic()
    await world.runtime.stop_all(4.0)
    assert time.monotonic() - began >= 2.0, "it was asked once more, and not killed"
    (ended,) = await world.runtime.observe()
    assert (ended.status, ended.reason, ended.exit_code) == (ReplicaStatus.TERMINATED, "Completed", 0)


async def test_stopping_all_hurries_a_drain_that_goes_on(world: World) -> None:
    at_work = world.spec(behaviour=Behaviour(has_job_in_hand=True), grace_period_seconds=300)
    await world.runtime.apply(at_work, 1)
    await ready(world.runtime, 1)
    await world.runtime.apply(at_work, 0)
    await one(world.runtime, lambda r: r.draining)
    await world.runtime.stop_all(4.0)
    (ended,) = await world.runtime.observe()
    assert (ended.status, ended.reason) == (ReplicaStatus.TERMINATED, "Completed")


async def test_a_deleted_deployment_ends_and_is_remembered_for_a_while(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    await world.print(replica, "last words")
    await world.runtime.delete("dep-1")
    await ready(world.runtime, 0)
    assert [r.id for r in await world.runtime.observe()] == [replica.id]
    lines = world.runtime.logs("dep-1", None, tail=1, follow=False)
    assert [line.text async for line in lines] == ["last words"]
    day_seconds = 24 * 3600
    for later_seconds, kept in ((day_seconds - 60, ["last words"]), (day_seconds + 60, [])):
        world.runtime.run_once(time.time() + later_seconds)
        lines = world.runtime.logs("dep-1", None, tail=1, follow=False)
        assert [line.text async for line in lines] == kept


async def test_only_the_last_few_ended_replicas_are_remembered(world: World) -> None:
    await world.runtime.apply(world.spec(), 7)
    await ready(world.runtime, 7)
    await world.runtime.apply(world.spec(), 0)
    await ready(world.runtime, 0)

    async def five_left() -> bool:
        return len(await world.runtime.observe()) == 5

    await eventually(five_left)
