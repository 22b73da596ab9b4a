"""A control loop ends when it is told to, whatever else happens to it at that moment."""

import asyncio

import pytest

from machineshop.control.loop import Loop


@pytest.mark.parametrize("turns", range(4))
async def test_a_stop_ends_a_loop_that_was_woken_the_moment_before(turns: int) -> None:
    passes = 0

    async def run_once(now: float) -> None:
        nonlocal passes
        passes += 1

    loop = Loop("test", run_once, interval_seconds=60.0)
    loop.start()
    await asyncio.sleep(0)
    loop.wake()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await loop.stop()
    assert passes >= 1
