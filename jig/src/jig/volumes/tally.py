"""How much of an upload or a download has arrived: in this run, and in an interrupted one before it."""

from __future__ import annotations

import threading

from jig.units import size


class Tally:
    """Counts bytes, from several threads.

    `wanted_bytes` are those of all files that the version lacked, or the folder, `sent_bytes` those that have arrived
    in this run, `resumed_bytes` those that an interrupted run had brought.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.wanted_bytes = self.sent_bytes = self.resumed_bytes = 0

    def want(self, count_bytes: int) -> None:
        """So much more is to arrive."""
        with self._lock:
            self.wanted_bytes += count_bytes

    def send(self, count_bytes: int) -> None:
        """So much has been sent, and has arrived."""
        with self._lock:
            self.sent_bytes += count_bytes

    def resume(self, count_bytes: int) -> None:
        """So much has turned out to be there."""
        with self._lock:
            self.resumed_bytes += count_bytes

    def sent(self) -> str:
        """What was sent, and what was not as it was there."""
        there = f", {size(self.resumed_bytes)} was there already" if self.resumed_bytes else ""
        return f"{size(self.sent_bytes)} sent{there}"

    def reached(self) -> str:
        """How far it has got, as the end of a sentence; empty where it has not begun."""
        arrived_bytes = self.sent_bytes + self.resumed_bytes
        return f": {size(arrived_bytes)} of {size(self.wanted_bytes)} have arrived" if self.wanted_bytes else ""
