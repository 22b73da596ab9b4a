"""The one shape of every control loop: `run_once`, again and again, woken early when something changed."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from machineshop.errors import Unavailable
from machineshop.store.write import Fence, fenced

log = logging.getLogger(__name__)

# A loop that fails comes back: soon at first, at most this much later.
MAX_BACKOFF_SECONDS = 30.0


class Hold(Protocol):
    """What says whether the loops run in this server: the lease."""

    @property
    def held(self) -> bool:
        """Whether they may run at this moment."""
        ...

    @property
    def fence(self) -> Fence | None:
        """What each of their writes has to pass in its own transaction."""
        ...


class Loop:
    """Runs `run_once(now)` every `interval_seconds`, and at once after `wake`.

    Args:
        name: For the log.
        run_once: One pass.
        interval_seconds: How long to rest between passes.
        clock: Seconds since the epoch.
        hold: Without it the loop runs in every server.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[float], Awaitable[object]],
        interval_seconds: float,
        clock: Callable[[], float] = time.time,
        *,
        hold: Hold | None = None,
    ) -> None:
        self.name = name
        self._run_once = run_once
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._hold = hold
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=f"loop-{self.name}")

    def wake(self) -> None:
        """Run as soon as possible."""
        self._woken.set()

    async def stop(self) -> None:
        """End, in the middle of a run if need be: what a run does is safe to cut off."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        with fenced(None if self._hold is None else self._hold.fence):
            while True:
                self._woken.clear()
                # A server that was halted may wake up here long after another has taken over.
                if self._hold is None or self._hold.held:
                    failures = 0 if await self._succeeds(failures) else failures + 1
                pause = self._interval_seconds if failures == 0 else backoff_seconds(self._interval_seconds, failures)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._woken.wait()

    async def _succeeds(self, failures: int) -> bool:
        try:
            await self._run_once(self._clock())
        except Unavailable as error:
            log.warning("loop.failed name=%s failures=%d error=%s", self.name, failures + 1, error)
        except Exception:
            log.exception("loop.failed name=%s failures=%d", self.name, failures + 1)
        else:
            return True
        return False


def backoff_seconds(interval_seconds: float, failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(max(interval_seconds, 0.1) * 2.0 ** min(failures, 20), MAX_BACKOFF_SECONDS)
