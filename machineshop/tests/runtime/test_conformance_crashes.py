"""Replicas that end by themselves, or stop answering, on every runtime."""

import time

from machineshop.runtime import health
from machineshop.runtime.base import ReplicaStatus
from machineshop.runtime.fake import Behaviour
from runtime.harness import World, one, ready


async def test_a_crashed_replica_starts_again_as_itself(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    await world.print(replica, "something is wrong")
    await world.end(replica, 3)
    waiting = await one(world.runtime, lambda r: r.reason == "Error")
    assert (waiting.id, waiting.status, waiting.exit_code) == (replica.id, ReplicaStatus.WAITING, 3)
    assert waiting.message == "The process exited with code 3. Its last line: something is wrong"
    (again,) = await ready(world.runtime, 1)
    assert (again.id, again.restarts, again.reason, again.message) == (replica.id, 1, None, None)
    assert world.watcher.of(replica.id) == ["key", "exited", "key"]


async def test_a_run_that_is_ended_for_a_reason_is_started_again_and_says_it(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    await world.runtime.restart(replica.id, "It is wedged.")
    waiting = await one(world.runtime, lambda r: r.reason == "Error")
    assert (waiting.id, waiting.message) == (replica.id, "It is wedged.")
    (again,) = await ready(world.runtime, 1)
    assert (again.id, again.restarts) == (replica.id, 1)
    assert world.watcher.ends == ["It is wedged"]
    await world.runtime.restart("unknown", "x")


async def test_a_run_that_does_not_get_ready_in_its_time_is_started_again(world: World) -> None:
    spec = world.spec(behaviour=Behaviour(healthy=False), startup_timeout_seconds=1)
    await world.runtime.apply(spec, 1)
    waiting = await one(world.runtime, lambda r: r.reason == "Error")
    assert "startup_timeout_seconds" in (waiting.message or "")
    assert (await one(world.runtime, lambda r: r.reason == "CrashLoopBackOff")).restarts == 1


async def test_crashes_with_work_done_between_them_are_no_crash_loop(world: World) -> None:
    world.watcher.has_worked = True
    await world.runtime.apply(world.spec(), 1)
    for _ in range(3):
        (replica,) = await ready(world.runtime, 1)
        await world.end(replica, 3)
        crashed = await one(world.runtime, lambda r: r.status is ReplicaStatus.WAITING and r.exit_code == 3)
        assert crashed.reason == "Error"
    await ready(world.runtime, 1)


async def test_from_the_second_crash_on_it_is_a_crash_loop(world: World) -> None:
    await world.runtime.apply(world.spec(behaviour=Behaviour(exit_code=3)), 1)
    replica = await one(world.runtime, lambda r: r.reason == "CrashLoopBackOff")
    assert replica.status is ReplicaStatus.WAITING
    assert replica.restarts == 1
    assert "2 times in a row" in (replica.message or "")
    assert "exited with code 3" in (replica.message or "")


async def test_a_crash_loop_that_is_over_speaks_of_no_next_start(world: World) -> None:
    crashing = world.spec(behaviour=Behaviour(exit_code=3))
    await world.runtime.apply(crashing, 1)
    assert "next start" in ((await one(world.runtime, lambda r: r.reason == "CrashLoopBackOff")).message or "")
    await world.runtime.apply(crashing, 0)
    ended = await one(world.runtime, lambda r: r.status is ReplicaStatus.TERMINATED)
    assert "next start" not in (ended.message or "")
    assert "exited with code 3" in (ended.message or "")


async def test_a_replica_that_ends_with_code_0_starts_again_too(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    await world.end(replica, 0)
    assert (await one(world.runtime, lambda r: r.reason == "Completed")).status is ReplicaStatus.WAITING
    await ready(world.runtime, 1)


async def test_readiness_is_lost_only_after_several_failed_checks_and_comes_back(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    lost_at = time.monotonic()
    await world.set_healthy(replica, False)
    gone = await one(world.runtime, lambda r: r.ready_since is None)
    assert time.monotonic() - lost_at > health.STEADY_INTERVAL_SECONDS * 1.5
    assert (gone.status, gone.restarts) == (ReplicaStatus.RUNNING, 0)
    await world.set_healthy(replica, True)
    (back,) = await ready(world.runtime, 1)
    assert (back.id, back.restarts) == (replica.id, 0)


async def test_the_platform_is_told_of_an_exit_until_it_takes_note(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    world.watcher.failures = 1
    await world.end(replica, 1)
    await one(world.runtime, lambda r: r.restarts == 1 and r.ready_since is not None)
    assert world.watcher.of(replica.id) == ["key", "exited", "key"]
