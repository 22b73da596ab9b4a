"""Patience with a platform that is away for a moment: its restart ends no upload, and no wait for a deployment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from jig.answers import pause_seconds, present
from jig.client import Client
from jig.errors import DeployError, NotFoundError, PlatformError

PASSING_STATUSES = frozenset({None, 408, 429, 500, 502, 503, 504})  # None: no answer came
SILENCE_SECONDS = 3.0  # what takes longer is said; a hiccup is not
AWAY_SECONDS = 60.0  # a platform that is away for longer is not just being restarted
LOOK_TIMEOUT_SECONDS = 10.0  # a look is answered in milliseconds

T = TypeVar("T")


def patiently(
    call: Callable[[], T],
    patience_seconds: float,
    say: Callable[[str], None],
    pause: Callable[[float], object] = time.sleep,
) -> T:
    """Call, again and again with growing pauses while the platform is unwell, for so long after the first failure.

    Args:
        call: what may be done twice.
        patience_seconds: for how long.
        say: called with a sentence, once, where that is not over in a moment.
        pause: waits for so many seconds.

    Raises:
        PlatformError: it is a matter of the call, or takes too long to pass.
    """
    failed_at, attempt, is_said = None, 0, False
    while True:
        began_at = time.monotonic()
        try:
            return call()
        except PlatformError as error:
            failed_at = failed_at or time.monotonic()
            if error.status not in PASSING_STATUSES or time.monotonic() - failed_at > patience_seconds:
                raise
            if not is_said and time.monotonic() - min(began_at, failed_at) > SILENCE_SECONDS:
                say(f"{error.message} Trying again, for {patience_seconds:.0f} s at most.")
                is_said = True
        attempt += 1
        pause(pause_seconds(attempt, None, random.random()))  # noqa: S311  jitter is no secret


class Looks:
    """Looks at a deployment that is waited for, over absences of the platform.

    Args:
        client: the platform.
        path: the deployment's.
        say: called with a sentence where the platform is away.
        meanwhile: what is so of the deployment, and what is not known, where there is no answer; one sentence.
        hint: what to do then.
        clock: seconds.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        say: Callable[[str], None],
        *,
        meanwhile: str,
        hint: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._path, self._say = client, path, say
        self._meanwhile, self._hint, self._clock = meanwhile, hint, clock
        self._asking_seconds = 0.0

    def now(self) -> float:
        """Seconds of a clock that stands still during a look: no limit passes while nobody can be asked."""
        return self._clock() - self._asking_seconds

    def look(self, **params: object) -> dict[str, Any]:
        """The deployment.

        Raises:
            NotFoundError: there is none.
            DeployError: the platform refuses, or is away for too long.
        """
        asked_at = self._clock()
        try:
            return patiently(lambda: self._ask(present(params)), AWAY_SECONDS, self._say)
        except NotFoundError:
            raise
        except PlatformError as error:
            hint = f"{error.hint}\n{self._hint}" if error.hint else self._hint
            raise DeployError(f"{self._meanwhile} {error.message}", hint=hint) from error
        finally:
            self._asking_seconds += self._clock() - asked_at

    def _ask(self, params: dict[str, Any]) -> dict[str, Any]:
        response = self._client.request("GET", self._path, params=params, timeout=LOOK_TIMEOUT_SECONDS)
        document: dict[str, Any] = self._client.document(response)
        return document
