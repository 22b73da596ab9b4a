"""Whether the database is away, so that callers are told at once and not after a timeout each."""

import logging
import threading
from collections.abc import Callable

from machineshop.errors import StoreUnavailable

log = logging.getLogger(__name__)

# How long to wait between two tries to reach it.
PAUSE_SECONDS = 0.25


class Outage:
    """Begins with a broken connection or one that could not be made; while it lasts, one thread alone tries again.

    Args:
        probe: Reaches for the database, and raises where that fails.
    """

    def __init__(self, probe: Callable[[], object]) -> None:
        self._probe = probe
        self._error: StoreUnavailable | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def check(self) -> None:
        """Return where the database is there, as far as we know.

        Raises:
            StoreUnavailable: It is away.
        """
        error = self._error
        if error is not None:
            raise StoreUnavailable(error.message)

    def failed(self, error: StoreUnavailable) -> bool:
        """The database is away; returns whether that is news."""
        with self._lock:
            if self._error is not None or self._closed.is_set():
                return False
            self._error = error
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="store-probe", daemon=True)
                self._thread.start()
        return True

    def over(self) -> None:
        """Something worked."""
        self._error = None

    def close(self) -> None:
        """Try no more."""
        self._closed.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while self._goes_on():
            self._closed.wait(PAUSE_SECONDS)
            try:
                self._probe()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is still away
                log.debug("store.still_away error=%s", error)
            else:
                self.over()

    def _goes_on(self) -> bool:
        with self._lock:
            if self._error is None or self._closed.is_set():
                self._thread = None  # the next outage has a thread of its own
                return False
            return True
