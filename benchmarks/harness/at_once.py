"""A bounded number of calls at once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def at_once(limit: int, number: int, call: Callable[[int], Awaitable[T]]) -> list[T]:
    """The results of `call(0)` to `call(number - 1)`, in order, of which `limit` are under way at a time."""
    results: dict[int, T] = {}
    left = iter(range(number))

    async def work() -> None:
        for one in left:
            results[one] = await call(one)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(limit, number)):
            group.create_task(work())
    return [results[one] for one in range(number)]
