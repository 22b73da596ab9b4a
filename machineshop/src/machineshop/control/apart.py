"""Keeps what goes wrong with one deployment from the others: a loop goes on with the next one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from machineshop.errors import LeaseLost, RuntimeUnavailable, StoreUnavailable

log = logging.getLogger(__name__)

# What is no deployment's own: the whole pass ends, and the loop comes back later.
_OF_ALL = (LeaseLost, StoreUnavailable, RuntimeUnavailable)


class Apart:
    """Whose turn failed in a loop, so that each failure is told once and not at every pass.

    Args:
        loop: For the log.
    """

    def __init__(self, loop: str) -> None:
        self._loop = loop
        self._failing: set[str] = set()

    @contextmanager
    def turn(self, deployment_id: str) -> Iterator[None]:
        """One deployment's turn: an exception in it is logged with the deployment's id, and goes no further.

        Raises:
            LeaseLost: As inside; so are StoreUnavailable and RuntimeUnavailable, which are no deployment's own.
        """
        try:
            yield
        except _OF_ALL:
            raise
        except Exception:
            if deployment_id not in self._failing:
                log.exception("deployment.failed loop=%s deployment_id=%s", self._loop, deployment_id)
            self._failing.add(deployment_id)
        else:
            self._failing.discard(deployment_id)

    def keep(self, live: set[str]) -> None:
        """Forget all others."""
        self._failing &= live
