from __future__ import annotations

import asyncio
import threading
from typing import Any

from sprocket.handover import Handover


async def test_calls_come_in_the_order_of_each_thread_and_none_is_lost() -> None:
    handover = Handover(asyncio.get_running_loop())
    calls: list[tuple[int, int]] = []

    def caller(number: int) -> None:
        for n in range(2000):
            handover.call(calls.append, (number, n))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    async with asyncio.timeout(60):
        while len(calls) < 8000:
            await asyncio.sleep(0.001)
    for number, thread in enumerate(threads):
        thread.join()
        assert [n for caller_number, n in calls if caller_number == number] == list(range(2000))


async def test_a_call_that_fails_takes_no_other_with_it() -> None:
    loop = asyncio.get_running_loop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    handover = Handover(loop)
    after = loop.create_future()
    handover.call(lambda: 1 / 0)
    handover.to(after)("value")
    assert await asyncio.wait_for(after, 60) == "value"
    assert isinstance(errors[0]["exception"], ZeroDivisionError)


def test_a_value_for_a_loop_that_is_closed_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    callback = Handover(loop).to(loop.create_future())
    loop.close()
    callback("late")
