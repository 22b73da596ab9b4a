"""What replicas need before they start, keys, secrets and volumes, on every runtime."""

import time

from machineshop.runtime.base import PreloadStatus, ReplicaStatus
from runtime.harness import World, one, ready


async def test_without_a_key_nothing_starts_and_it_is_tried_again(world: World) -> None:
    world.watcher.failures = 1
    await world.runtime.apply(world.spec(), 1)
    waiting = await one(world.runtime, lambda r: r.reason == "CreateContainerConfigError")
    assert "The store is away." in (waiting.message or "")
    await ready(world.runtime, 1)


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
