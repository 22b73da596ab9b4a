"""What every runtime does, checked on each of them."""

import asyncio
import time

import pytest

from machineshop.runtime import health
from machineshop.runtime.base import ArtifactKind, LogLine, PreloadStatus, Replica, ReplicaStatus, Runtime
from machineshop.runtime.fake import Behaviour
from machineshop.runtime.local import LocalRuntime
from runtime.harness import World, eventually, one, ready


def test_it_offers_what_the_platform_asks_of_a_runtime(world: World) -> None:
    runtime: Runtime = world.runtime
    assert runtime.name in ("fake", "process", "docker")
    assert runtime.accepts & frozenset(ArtifactKind)
    assert runtime.capacity().cpu > 0


async def test_the_count_is_reached_and_each_replica_is_distinct(world: World) -> None:
    await world.runtime.apply(world.spec(), 3)
    replicas = await ready(world.runtime, 3)
    assert len({replica.port for replica in replicas}) == 3
    assert {replica.status for replica in replicas} == {ReplicaStatus.RUNNING}
    assert all(r.created_at <= (r.started_at or 0) <= (r.ready_since or 0) <= time.time() for r in replicas)
    assert [world.watcher.of(replica.id) for replica in replicas] == [["key"]] * 3


async def test_applying_the_same_again_changes_nothing(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    before = await ready(world.runtime, 1)
    await world.runtime.apply(world.spec(), 1)
    assert world.runtime.run_once(time.time()) == []
    assert await world.runtime.observe() == before


async def test_a_replica_is_not_ready_while_it_starts(world: World) -> None:
    await world.runtime.apply(world.spec(behaviour=Behaviour(healthy=False)), 1)
    replica = await one(world.runtime, lambda r: r.status is ReplicaStatus.RUNNING)
    assert replica.ready_since is None
    await world.set_healthy(replica, True)
    (seen,) = await ready(world.runtime, 1)
    assert (seen.id, seen.started_at) == (replica.id, replica.started_at)


async def test_without_a_health_check_a_replica_is_ready_as_soon_as_it_runs(world: World) -> None:
    await world.runtime.apply(world.spec(behaviour=Behaviour(healthy=False), health_check_path=""), 1)
    await ready(world.runtime, 1)


async def test_scaling_down_stops_idle_replicas_before_busy_ones(world: World) -> None:
    await world.runtime.apply(world.spec(), 3)
    busy = (await ready(world.runtime, 3))[-1]
    await world.runtime.apply(world.spec(), 1, frozenset({busy.id}))
    (left,) = await ready(world.runtime, 1)
    assert left.id == busy.id


async def test_scaled_to_zero_nothing_runs(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    await world.runtime.apply(world.spec(), 0)
    await ready(world.runtime, 0)
    ended = await one(world.runtime, lambda r: r.id == replica.id)
    assert (ended.status, ended.reason) == (ReplicaStatus.TERMINATED, "Completed")
    assert world.watcher.of(replica.id) == ["key", "exited"]


async def test_a_rollout_never_has_fewer_ready_replicas_than_asked_for(world: World) -> None:
    await world.runtime.apply(world.spec("r1"), 2)
    await ready(world.runtime, 2, "r1")
    counting = asyncio.create_task(_fewest_ready(world.runtime))
    await world.runtime.apply(world.spec("r2"), 2)
    await ready(world.runtime, 2, "r2")
    counting.cancel()
    assert await counting >= 2


async def _fewest_ready(runtime: LocalRuntime) -> int:
    fewest = 100
    try:
        while True:
            fewest = min(fewest, sum(r.ready_since is not None for r in await runtime.observe()))
            await asyncio.sleep(0.002)
    except asyncio.CancelledError:
        return fewest


@pytest.mark.parametrize(
    "broken",
    [Behaviour(healthy=False), Behaviour(exit_code=3), Behaviour(preparation_failure="There is no such thing.")],
    ids=["never healthy", "exits", "cannot be prepared"],
)
async def test_a_revision_that_never_gets_ready_leaves_the_old_one_serving(world: World, broken: Behaviour) -> None:
    await world.runtime.apply(world.spec("r1"), 1)
    (old,) = await ready(world.runtime, 1, "r1")
    await world.runtime.apply(world.spec("r2", broken), 1)
    await one(world.runtime, lambda r: r.revision_id == "r2" and _settled(r, broken))
    assert (await one(world.runtime, lambda r: r.id == old.id)).ready_since == old.ready_since
    await world.runtime.apply(world.spec("r3"), 1)
    await ready(world.runtime, 1, "r3")


def _settled(replica: Replica, behaviour: Behaviour) -> bool:
    if behaviour.exit_code is not None:
        return replica.reason == "CrashLoopBackOff"
    if behaviour.preparation_failure is not None:
        return replica.reason in ("ErrImagePull", "ImagePullBackOff")
    return replica.status is ReplicaStatus.RUNNING and "503" in (replica.message or "")


async def test_rolling_back_stops_the_new_revision_and_keeps_the_old_replicas(world: World) -> None:
    await world.runtime.apply(world.spec("r1"), 1)
    before = await ready(world.runtime, 1, "r1")
    await world.runtime.apply(world.spec("r2", Behaviour(healthy=False)), 1)
    await one(world.runtime, lambda r: r.revision_id == "r2" and r.status is ReplicaStatus.RUNNING)
    await world.runtime.apply(world.spec("r1"), 1)
    assert await ready(world.runtime, 1, "r1") == before


async def test_an_artifact_that_cannot_be_had_is_said_and_tried_again(world: World) -> None:
    await world.runtime.apply(world.spec(behaviour=Behaviour(preparation_failure="There is no such thing.")), 1)
    replica = await one(world.runtime, lambda r: r.reason in ("ErrImagePull", "ImagePullBackOff"))
    assert replica.status is ReplicaStatus.WAITING
    assert "There is no" in (replica.message or "")
    assert world.watcher.events == []


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


async def test_more_gpus_than_there_are_is_said(world: World) -> None:
    await world.runtime.apply(world.spec(gpu_count=1, gpu_type="h100-80gb"), 1)
    replica = await one(world.runtime, lambda r: r.reason == "Insufficient GPU")
    assert replica.status is ReplicaStatus.WAITING
    assert replica.message == "It needs 1 GPU; 0 of this machine's 0 are free."


async def test_replicas_outlive_the_server_and_are_adopted(world: World) -> None:
    await world.runtime.apply(world.spec(), 2)
    before = await ready(world.runtime, 2)
    await world.restart_server()
    after = await world.runtime.observe()
    assert sorted(after, key=lambda r: r.id) == sorted(before, key=lambda r: r.id)
    await world.runtime.apply(world.spec(), 2)
    assert world.runtime.run_once(time.time()) == []
    assert [event for event, _ in world.watcher.events] == ["key", "key"]
    await _print_and_see(world, before[0], "still here")


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


async def test_the_platform_is_told_of_an_exit_until_it_takes_note(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    world.watcher.failures = 1
    await world.end(replica, 1)
    await one(world.runtime, lambda r: r.restarts == 1 and r.ready_since is not None)
    assert world.watcher.of(replica.id) == ["key", "exited", "key"]


async def test_without_a_key_nothing_starts_and_it_is_tried_again(world: World) -> None:
    world.watcher.failures = 1
    await world.runtime.apply(world.spec(), 1)
    waiting = await one(world.runtime, lambda r: r.reason == "CreateContainerConfigError")
    assert "The store is away." in (waiting.message or "")
    await ready(world.runtime, 1)


async def test_logs_of_all_replicas_come_in_order_of_time(world: World) -> None:
    await world.runtime.apply(world.spec(), 2)
    first, second = await ready(world.runtime, 2)
    for number in range(3):
        await _print_and_see(world, first, f"first {number}")
        await _print_and_see(world, second, f"second {number}")
    expected = [f"{who} {number}" for number in range(3) for who in ("first", "second")]
    assert await _texts(world.runtime, None, tail=6) == expected
    assert await _texts(world.runtime, None, tail=2) == expected[-2:]
    assert await _texts(world.runtime, second.id, tail=2) == ["second 1", "second 2"]
    assert (await _texts(world.runtime, None, tail=None))[-6:] == expected
    assert await _texts(world.runtime, None, tail=0) == []


async def _print_and_see(world: World, replica: Replica, text: str) -> None:
    """Two replicas' lines are in order where the second is printed once the first has got its time."""
    await world.print(replica, text)

    async def seen() -> bool:
        return await _texts(world.runtime, replica.id, tail=1) == [text]

    await eventually(seen)


async def _texts(runtime: LocalRuntime, replica_id: str | None, tail: int | None) -> list[str]:
    return [line.text async for line in runtime.logs("dep-1", replica_id, tail=tail, follow=False)]


async def test_following_shows_lines_at_once_from_new_replicas_too_and_ends_with_the_deployment(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (first,) = await ready(world.runtime, 1)
    followed: set[str] = set()

    async def follow() -> None:
        async for line in world.runtime.logs("dep-1", None, tail=0, follow=True):
            followed.add(line.text)

    async def printed_and_seen() -> bool:
        await world.print(first, "one")  # again, where the following had not begun yet
        return "one" in followed

    following = asyncio.create_task(follow())
    await eventually(printed_and_seen)
    await world.runtime.apply(world.spec(), 2)
    second = next(r for r in await ready(world.runtime, 2) if r.id != first.id)
    await world.print(second, "two")
    await world.runtime.delete("dep-1")
    await asyncio.wait_for(following, 60)
    assert {"one", "two"} <= followed


async def test_following_one_replica_ends_with_it_and_following_can_be_given_up(world: World) -> None:
    await world.runtime.apply(world.spec(), 2)
    first, _ = await ready(world.runtime, 2)
    given_up = asyncio.create_task(_followed(world.runtime, None))
    following = asyncio.create_task(_followed(world.runtime, first.id))
    await asyncio.sleep(0.1)
    given_up.cancel()
    await world.runtime.delete("dep-1")
    await asyncio.wait_for(following, 60)
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def _followed(runtime: LocalRuntime, replica_id: str | None) -> list[LogLine]:
    return [line async for line in runtime.logs("dep-1", replica_id, tail=0, follow=True)]


async def test_logs_of_an_unknown_deployment_are_empty_and_end(world: World) -> None:
    lines = world.runtime.logs("nothing", None, tail=None, follow=True)
    assert [line async for line in lines] == []


async def test_two_deployments_do_not_disturb_each_other(world: World) -> None:
    await world.runtime.apply(world.spec("r1"), 1)
    await world.runtime.apply(world.spec("s1", deployment_id="dep-2", deployment_name="other"), 1)
    before = await ready(world.runtime, 2)
    await world.runtime.delete("dep-2")
    left = await ready(world.runtime, 1)
    assert left == [replica for replica in before if replica.deployment_id == "dep-1"]


async def test_secrets_are_looked_up_at_each_start(world: World) -> None:
    world.watcher.secrets["hello-TOKEN"] = "first"
    spec = world.spec(secrets={"TOKEN": "hello-TOKEN"})
    await world.runtime.apply(spec, 1)
    (replica,) = await ready(world.runtime, 1)
    assert await world.variable(replica, "TOKEN") == "first"
    world.watcher.secrets["hello-TOKEN"] = "second"
    await world.runtime.apply(spec, 1)
    assert world.runtime.run_once(time.time()) == [], "a new value alone replaces nobody"
    await world.end(replica, 1)
    await one(world.runtime, lambda r: r.restarts == 1)
    (replica,) = await ready(world.runtime, 1)
    assert await world.variable(replica, "TOKEN") == "second"


async def test_a_replica_that_was_adopted_is_started_again_with_its_secrets(world: World) -> None:
    world.watcher.secrets["hello-TOKEN"] = "first"
    await world.runtime.apply(world.spec(secrets={"TOKEN": "hello-TOKEN"}), 1)
    (replica,) = await ready(world.runtime, 1)
    await world.restart_server()
    (adopted,) = await ready(world.runtime, 1)
    assert (adopted.id, await world.variable(adopted, "TOKEN")) == (replica.id, "first")
    world.watcher.secrets["hello-TOKEN"] = "second"
    await world.end(adopted, 1)
    await world.runtime.apply(world.spec(secrets={"TOKEN": "hello-TOKEN"}), 1)
    await one(world.runtime, lambda r: r.restarts == 1)
    (again,) = await ready(world.runtime, 1)
    assert (again.id, await world.variable(again, "TOKEN")) == (replica.id, "second")


async def test_without_its_secrets_a_replica_does_not_start_and_says_why(world: World) -> None:
    await world.runtime.apply(world.spec(secrets={"TOKEN": "hello-TOKEN"}), 1)
    replica = await one(world.runtime, lambda r: r.reason == "CreateContainerConfigError")
    assert "There is no secret 'hello-TOKEN' (for the variable TOKEN)" in (replica.message or "")
    assert world.watcher.of(replica.id)[0] == "exited", "no key was made for it"
    world.watcher.secrets["hello-TOKEN"] = "late"
    (replica,) = await ready(world.runtime, 1)
    assert await world.variable(replica, "TOKEN") == "late"


async def test_replicas_start_once_their_volume_is_loaded_and_say_so(world: World) -> None:
    world.hold_volumes(True)
    await world.runtime.apply(world.spec(volumes=(world.volume(),)), 2)
    loading = await one(world.runtime, lambda r: (r.message or "").startswith("Its volumes are being loaded."))
    assert (loading.status, loading.reason) == (ReplicaStatus.WAITING, "ContainerCreating")
    assert loading.volume_preload_status is PreloadStatus.IN_PROGRESS
    assert loading.volume_preload_completed_at is None
    world.hold_volumes(False)
    for replica in await ready(world.runtime, 2):
        assert replica.volume_preload_status is PreloadStatus.COMPLETED
        began, done = replica.volume_preload_started_at or 0, replica.volume_preload_completed_at or 0
        assert replica.created_at <= began <= done <= (replica.started_at or 0)
    seen = {r.id: r.volume_preload_completed_at for r in await world.runtime.observe()}
    await world.restart_server()
    adopted = await ready(world.runtime, 2)
    assert {r.id: r.volume_preload_completed_at for r in adopted} == seen
    assert {r.volume_preload_status for r in adopted} == {PreloadStatus.COMPLETED}


async def test_a_volume_that_cannot_be_had_is_said_and_tried_again(world: World) -> None:
    volume = world.volume()
    world.lose_volumes(True)
    await world.runtime.apply(world.spec(volumes=(volume,)), 1)
    failed = await one(world.runtime, lambda r: r.reason == "FailedMount")
    assert (failed.status, failed.volume_preload_status) == (ReplicaStatus.WAITING, PreloadStatus.FAILED)
    assert "There is no version" in (failed.message or "")
    world.lose_volumes(False)
    (replica,) = await ready(world.runtime, 1)
    assert (replica.id, replica.volume_preload_status) == (failed.id, PreloadStatus.COMPLETED)
    assert (replica.reason, replica.restarts) == (None, 0)


async def test_a_replica_without_volumes_says_nothing_of_them(world: World) -> None:
    await world.runtime.apply(world.spec(), 1)
    (replica,) = await ready(world.runtime, 1)
    assert replica.volume_preload_status is None
    assert (replica.volume_preload_started_at, replica.volume_preload_completed_at) == (None, None)


async def test_a_volume_that_was_asked_for_early_is_there_when_it_is_needed(world: World) -> None:
    volume = world.volume()
    world.runtime.preload("project-1", volume)
    world.runtime.preload("project-1", volume)
    await world.runtime.apply(world.spec(volumes=(volume,)), 1)
    (replica,) = await ready(world.runtime, 1)
    assert replica.volume_preload_status is PreloadStatus.COMPLETED
