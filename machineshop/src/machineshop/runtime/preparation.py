"""What replicas need, on its way to this machine: made ready once, and again after a while when that failed."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from machineshop.errors import MachineshopError
from machineshop.runtime.base import RevisionSpec
from machineshop.runtime.engine import PreparationFailed

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
PATIENT_TRIES = 4
"""So many may fail, in 15 s, before it is said that nobody should wait: a registry that hiccups is over it by then."""
PULL_FAILED, PULL_BACK_OFF = "ErrImagePull", "ImagePullBackOff"
"""The first while it may still be had with the next try, and the second once nobody should wait for that."""

logger = logging.getLogger(__name__)
_Key = tuple[str, ...]


class Need(NamedTuple):
    """Something that a replica cannot start without: its artifact, or a volume."""

    key: _Key
    """What tells it from others; all revisions with the same share it."""
    make: Callable[[], Awaitable[object]]
    """Makes it ready.

    Raises:
        PreparationFailed: It cannot be; the reason and the message say why.
    """
    failed: str = PULL_FAILED
    """The reason of a failure that nobody foresaw."""


class Preparations:
    """Which needs are ready, which are being made so, and why some are not.

    Args:
        changed: Called whenever an answer of this object has changed.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._ready: set[_Key] = set()
        self._tasks: dict[_Key, asyncio.Task[None]] = {}
        self._failures: dict[_Key, tuple[PreparationFailed, int, float]] = {}

    def are_ready(self, needs: Sequence[Need]) -> bool:
        """Whether a replica with these needs can start."""
        return all(need.key in self._ready for need in needs)

    def failure(self, needs: Sequence[Need]) -> PreparationFailed | None:
        """Why the last try of the first that failed did; None where none has, or not since it succeeded."""
        for need in needs:
            if (failed := self._failures.get(need.key)) is not None:
                error, tries, _ = failed
                hopeless = error.reason == PULL_FAILED and (error.final or tries > PATIENT_TRIES)
                return PreparationFailed(PULL_BACK_OFF, error.message) if hopeless else error
        return None

    def retry_at(self, needs: Sequence[Need]) -> float | None:
        """When the next try is due; None where none is needed, or all are under way."""
        return min((at for need in needs if (at := self._retry_at(need.key)) is not None), default=None)

    def want(self, needs: Sequence[Need], of: RevisionSpec, now: float) -> None:
        """See to it that these are made ready, now or when the next try is due."""
        for need in needs:
            key = need.key
            if key not in self._ready and key not in self._tasks and (self._retry_at(key) or now) <= now:
                self._tasks[key] = asyncio.create_task(self._try(need, of), name=f"prepare {of.deployment_name}")

    def keep(self, needs: Iterable[Need]) -> None:
        """Give up any other that is under way, and forget what is known of it."""
        keys = {need.key for need in needs}
        for key in self._tasks.keys() - keys:
            self._tasks[key].cancel()
        self._ready &= keys
        self._failures = {key: failed for key, failed in self._failures.items() if key in keys}

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _retry_at(self, key: _Key) -> float | None:
        return self._failures[key][2] if key in self._failures and key not in self._tasks else None

    async def _try(self, need: Need, of: RevisionSpec) -> None:
        try:
            await need.make()
        except PreparationFailed as error:
            self._fail(need, of, error)
        except (MachineshopError, OSError) as error:
            self._fail(need, of, PreparationFailed(need.failed, f"It cannot be made ready: {error}"))
        except Exception:
            logger.exception("preparation failed unexpectedly: deployment=%s", of.deployment_id)
            message = "It cannot be made ready, for a reason that nobody foresaw; the platform's log says more."
            self._fail(need, of, PreparationFailed(need.failed, message))
        else:
            self._ready.add(need.key)
            self._failures.pop(need.key, None)
        finally:
            del self._tasks[need.key]
            self._changed()

    def _fail(self, need: Need, of: RevisionSpec, error: PreparationFailed) -> None:
        tries = self._failures[need.key][1] + 1 if need.key in self._failures else 1
        retry_seconds = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(tries - 1, 30))
        self._failures[need.key] = (error, tries, time.time() + retry_seconds)
        logger.warning("not ready: deployment=%s reason=%s tries=%d", of.deployment_id, error.reason, tries)
