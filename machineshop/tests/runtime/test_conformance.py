"""What every runtime does, checked on each of them: what runs, and how one revision follows another."""

import asyncio
import time

import pytest

from machineshop.runtime.base import ArtifactKind, Replica, ReplicaStatus, Runtime
from machineshop.runtime.fake import Behaviour
from machineshop.runtime.local import LocalRuntime
from runtime.harness import World, one, ready


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


async def test_more_gpus_than_there_are_is_said(world: World) -> None:
    await world.runtime.apply(world.spec(gpu_count=1, gpu_type="h100-80gb"), 1)
    replica = await one(world.runtime, lambda r: r.reason == "Insufficient GPU")
    assert replica.status is ReplicaStatus.WAITING
    assert replica.message == "It needs 1 GPU; 0 of this machine's 0 are free."


async def test_two_deployments_do_not_disturb_each_other(world: World) -> None:
    await world.runtime.apply(world.spec("r1"), 1)
    await world.runtime.apply(world.spec("s1", deployment_id="dep-2", deployment_name="other"), 1)
    before = await ready(world.runtime, 2)
    await world.runtime.delete("dep-2")
    left = await ready(world.runtime, 1)
    assert left == [replica for replica in before if replica.deployment_id == "dep-1"]
