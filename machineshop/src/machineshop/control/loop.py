"""The one shape of every control loop: `run_once`, again and again, woken early when something changed."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable

from machineshop.errors import Unavailable

log = logging.getLogger(__name__)

# A loop that fails comes back: soon at first, at most this much later.
MAX_BACKOFF_SECONDS = 30.0


class Loop:
    """Runs `run_once(now)` every `interval_seconds`, and at once after `wake`."""

    def __init__(
        self,
        name: str,
        run_once: Callable[[float], Awaitable[object]],
        interval_seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._run_once = run_once
        self._interval_seconds = interval_seconds
        self._clock = clock
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
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        while True:
            self._woken.clear()
            try:
                await self._run_once(self._clock())
                failures = 0
            except Unavailable as error:
                failures += 1
                log.warning("loop.failed name=%s failures=%d error=%s", self.name, failures, error)
            except Exception:
                failures += 1
                log.exception("loop.failed name=%s failures=%d", self.name, failures)
            pause = self._interval_seconds if failures == 0 else backoff_seconds(self._interval_seconds, failures)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), pause)


def backoff_seconds(interval_seconds: float, failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(max(interval_seconds, 0.1) * 2.0 ** min(failures, 20), MAX_BACKOFF_SECONDS)
