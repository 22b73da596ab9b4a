"""What replicas print, on every runtime."""

import asyncio

import pytest

from machineshop.runtime.base import LogLine
from machineshop.runtime.local import LocalRuntime
from runtime.harness import World, eventually, print_and_see, ready, texts_of


async def test_logs_of_all_replicas_come_in_order_of_time(world: World) -> None:
    await world.runtime.apply(world.spec(), 2)
    first, second = await ready(world.runtime, 2)
    for number in range(3):
        await print_and_see(world, first, f"first {number}")
        await print_and_see(world, second, f"second {number}")
    expected = [f"{who} {number}" for number in range(3) for who in ("first", "second")]
    assert await texts_of(world.runtime, None, tail=6) == expected
    assert await texts_of(world.runtime, None, tail=2) == expected[-2:]
    assert await texts_of(world.runtime, second.id, tail=2) == ["second 1", "second 2"]
    assert (await texts_of(world.runtime, None, tail=None))[-6:] == expected
    assert await texts_of(world.runtime, None, tail=0) == []


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
