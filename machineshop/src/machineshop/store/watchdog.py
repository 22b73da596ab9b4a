"""Cuts connections that hang: the last resort where neither the database nor the network ends a statement.

A database whose machine stands still acknowledges packets and answers nothing, and none of its own time limits work.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

LOOK_SECONDS = 0.5


class Watchdog:
    """A thread that looks at what is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[int, tuple[float, Any]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextlib.contextmanager
    def bound(self, driver: Any, seconds: float) -> Iterator[None]:
        """Cut the driver's connection where this block takes longer than so many seconds: its statement fails then."""
        with self._lock:
            self._under_way[id(driver)] = (time.monotonic() + seconds, driver)
        try:
            yield
        finally:
            with self._lock:
                self._under_way.pop(id(driver), None)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            now = time.monotonic()
            with self._lock:  # nobody closes a connection meanwhile, so its descriptor is still its own
                for key, (until, driver) in list(self._under_way.items()):
                    if now > until:
                        del self._under_way[key]
                        _cut(driver)


def _cut(driver: Any) -> None:
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(driver.pgconn.socket)) as opened:
        opened.shutdown(socket.SHUT_RDWR)
