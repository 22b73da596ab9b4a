"""One caller's work on its way to the writer and back to the caller's event loop."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection

Fence = Callable[[Connection], None]
# For the task that has one. What it starts in tasks of their own is free of it: a worker's claim, an answer on its way.
_fence: ContextVar[tuple[Fence, object] | None] = ContextVar("fence", default=None)


@contextlib.contextmanager
def fenced(check: Fence | None) -> Iterator[None]:
    """Have every write of this task pass `check` first, each in its own transaction: what that raises refuses it."""
    token = _fence.set(None if check is None else (check, asyncio.current_task()))
    try:
        yield
    finally:
        _fence.reset(token)


class Write:
    """One caller's work on its way through the writer thread.

    Args:
        operation: What it does.
        queues: The deployments whose queues nobody else may write in meanwhile.
        hand_over: Called with the result as soon as there is one, perhaps before it is committed; where that fails and
            the work is done again, called again.
        alone: What nobody else may do meanwhile, on any server.
    """

    __slots__ = (
        "alone",
        "committed",
        "error",
        "fence",
        "future",
        "hand_over",
        "handed_over",
        "loop",
        "operation",
        "queues",
        "result",
    )

    def __init__(
        self,
        operation: Callable[[Connection], Any],
        queues: Sequence[str] = (),
        hand_over: Callable[[Any], None] | None = None,
        alone: str | None = None,
    ) -> None:
        self.operation = operation
        self.queues = queues
        self.alone = alone
        self.hand_over = hand_over
        self.handed_over = False
        self.fence = _fence_of_this_task()
        self.loop = loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        # Which of those that were committed on their callers' threads it is; 0: none.
        self.committed = 0

    def run(self, conn: Connection) -> None:
        """Do it in the connection's transaction."""
        if self.fence is not None:
            self.fence(conn)
        self.result = self.operation(conn)

    def early(self) -> None:
        """Its result is there, and not on disk yet."""
        if self.hand_over is not None and self.error is None and not self.handed_over:
            self.handed_over = True
            self.hand_over(self.result)

    def again(self) -> None:
        """It came to nothing, and is about to be tried once more."""
        self.result = self.error = None
        self.handed_over = False

    def resolve(self) -> None:
        """Answer the caller."""
        self.early()
        if self.future.done():  # the caller went away; its work is committed all the same
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def on_loops(group: list[Write], step: Callable[[Write], None]) -> None:
    """Take a step for each write on its caller's event loop, in one wake-up per loop."""
    for loop in {write.loop for write in group}:
        mine = [write for write in group if write.loop is loop]
        with contextlib.suppress(RuntimeError):  # a loop that has ended has nobody waiting
            loop.call_soon_threadsafe(_step_all, step, mine)


def _step_all(step: Callable[[Write], None], writes: list[Write]) -> None:
    for write in writes:
        step(write)


def _fence_of_this_task() -> Fence | None:
    found = _fence.get()
    return found[0] if found is not None and found[1] is asyncio.current_task() else None
