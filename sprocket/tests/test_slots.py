"""Who is next at the model."""

from __future__ import annotations

import asyncio

import pytest

from sprocket.slots import Slots


async def test_slots_go_round_in_the_order_of_asking() -> None:
    slots = Slots(1)
    served: list[int] = []

    async def visitor(number: int) -> None:
        await slots.take()
        served.append(number)
        await asyncio.sleep(0)
        slots.give_back()

    assert slots.take_if_free()
    assert not slots.take_if_free()
    visitors = [asyncio.create_task(visitor(number)) for number in range(4)]
    await asyncio.sleep(0)
    visitors[1].cancel()
    slots.give_back()
    assert not slots.take_if_free()
    await asyncio.gather(*visitors, return_exceptions=True)
    assert served == [0, 2, 3]
    assert slots.free == 1


async def test_who_gives_up_in_the_moment_of_getting_a_slot_passes_it_on() -> None:
    slots = Slots(1)
    assert slots.take_if_free()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give_back()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert slots.free == 1


async def test_there_are_as_many_as_were_made() -> None:
    slots = Slots(3)
    assert [slots.take_if_free() for _ in range(4)] == [True, True, True, False]
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give_back()
    await waiting
    assert slots.free == 0
    for _ in range(3):
        slots.give_back()
    assert (slots.free, slots.count) == (3, 3)
