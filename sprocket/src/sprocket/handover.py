"""From one thread into the event loop of another: calls, and values that settle futures there.

Waking an event loop from outside costs a system call and a change of thread; what comes in while it wakes up rides
along for nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Handover:
    """Calls functions in the thread of an event loop, in the order in which it was asked to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._waking = False

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a function called soon. From any thread.

        Raises:
            RuntimeError: the event loop is closed.
        """
        self._calls.append((function, arguments))
        # Whoever finds the loop about to wake has put its call there before the loop looks.
        if not self._waking:
            self._waking = True
            self._wake()

    def to(self, future: asyncio.Future[Any]) -> Callable[[Any], None]:
        """Make a callback for other threads that settles a future of the loop's, as long as there is a loop."""

        def callback(value: Any) -> None:
            if not self._loop.is_closed():
                self.call(_settle, future, value)

        return callback

    def _wake(self) -> None:
        self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._waking = False
        try:
            while self._calls:
                function, arguments = self._calls.popleft()
                function(*arguments)
        finally:
            if self._calls:
                self._wake()


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
