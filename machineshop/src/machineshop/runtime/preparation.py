"""Artifacts on their way to this machine: each is made ready once, and again after a while when that failed."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from machineshop.errors import MachineshopError
from machineshop.runtime.base import RevisionSpec
from machineshop.runtime.engine import PreparationFailed

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
PULL_FAILED, PULL_BACK_OFF = "ErrImagePull", "ImagePullBackOff"
"""Kubernetes says the first of a try that failed, and the second once it waits between tries."""

logger = logging.getLogger(__name__)
_Key = tuple[str, str]


class Preparations:
    """Which artifacts are ready, which are being made so, and why some are not.

    Args:
        prepare: Makes the artifact of one revision ready.
        changed: Called whenever an answer of this object has changed.
    """

    def __init__(self, prepare: Callable[[RevisionSpec], Awaitable[None]], changed: Callable[[], None]) -> None:
        self._prepare, self._changed = prepare, changed
        self._ready: set[_Key] = set()
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._failures: dict[_Key, tuple[PreparationFailed, int, float]] = {}

    def is_ready(self, spec: RevisionSpec) -> bool:
        """Whether a replica of this revision can start."""
        return _key(spec) in self._ready

    def failure(self, spec: RevisionSpec) -> PreparationFailed | None:
        """Why the last try failed; None before its end, and once one has succeeded."""
        failed = self._failures.get(_key(spec))
        if failed is None:
            return None
        error, tries, _ = failed
        again = tries > 1 and error.reason == PULL_FAILED
        return PreparationFailed(PULL_BACK_OFF, error.message) if again else error

    def retry_at(self, spec: RevisionSpec) -> float | None:
        """When the next try is due; None where none is needed, or one is under way."""
        key = _key(spec)
        return self._failures[key][2] if key in self._failures and key not in self._tasks else None

    def want(self, spec: RevisionSpec, now: float) -> None:
        """See to it that the artifact is made ready, now or when the next try is due."""
        key = _key(spec)
        if key not in self._ready and key not in self._tasks and (self.retry_at(spec) or now) <= now:
            self._tasks[key] = asyncio.create_task(self._try(key, spec), name=f"prepare {spec.deployment_name}")

    def keep(self, specs: Iterable[RevisionSpec]) -> None:
        """Forget what is known of any other artifact."""
        keys = {_key(spec) for spec in specs}
        self._ready &= keys
        self._failures = {key: failed for key, failed in self._failures.items() if key in keys}

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, key: _Key, spec: RevisionSpec) -> None:
        try:
            await self._prepare(spec)
        except PreparationFailed as error:
            self._fail(key, spec, error)
        except (MachineshopError, OSError) as error:
            self._fail(key, spec, PreparationFailed(PULL_FAILED, f"The artifact cannot be made ready: {error}"))
        except Exception:
            logger.exception("preparation failed unexpectedly: deployment=%s", spec.deployment_id)
            message = (
                "The artifact cannot be made ready, for a reason that nobody foresaw; the platform's log says more."
            )
            self._fail(key, spec, PreparationFailed(PULL_FAILED, message))
        else:
            self._ready.add(key)
            self._failures.pop(key, None)
        finally:
            del self._tasks[key]
            self._changed()

    def _fail(self, key: _Key, spec: RevisionSpec, error: PreparationFailed) -> None:
        tries = self._failures[key][1] + 1 if key in self._failures else 1
        retry_seconds = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(tries - 1, 30))
        self._failures[key] = (error, tries, time.time() + retry_seconds)
        logger.warning("artifact not ready: deployment=%s reason=%s tries=%d", spec.deployment_id, error.reason, tries)


def _key(spec: RevisionSpec) -> _Key:
    return spec.project_id, spec.image
