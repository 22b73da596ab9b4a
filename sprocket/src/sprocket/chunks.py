"""What a streaming model gives of its outputs while predict runs, one chunk for each `yield`, until it is sent."""

from __future__ import annotations

import threading
from typing import NamedTuple

BATCH_LIMIT_CHARS = 1024**2
"""What travels together; one chunk that is larger goes alone."""


class Batch(NamedTuple):
    """Some chunks, as JSON texts in their order, and how many of the job's came before them."""

    first: int
    texts: list[str]

    def encode(self) -> str:
        """Give them as the payload of a running job."""
        return f'{{"first":{self.first},"chunks":[{",".join(self.texts)}]}}'


NO_CHUNKS = Batch(0, [])


class Chunks:
    """The chunks of one job that have not been taken yet. From any thread."""

    def __init__(self) -> None:
        self.size_chars = 0
        self._texts: list[str] = []
        self._taken = 0
        self._refused = False
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._texts)

    def add(self, texts: list[str]) -> None:
        """Add chunks, each as JSON text."""
        with self._lock:
            if not self._refused:
                self._texts.extend(texts)
                self.size_chars += sum(map(len, texts))

    def take(self) -> Batch:
        """Take what is to go next; there may be more."""
        with self._lock:
            size_chars = number = 0
            while number < len(self._texts) and (number == 0 or size_chars < BATCH_LIMIT_CHARS):
                size_chars += len(self._texts[number])
                number += 1
            batch = Batch(self._taken, self._texts[:number])
            del self._texts[:number]
            self._taken += number
            self.size_chars -= size_chars
            return batch

    def put_back(self, batch: Batch) -> None:
        """Return what could not be sent."""
        with self._lock:
            self._texts[:0] = batch.texts
            self._taken -= len(batch.texts)
            self.size_chars += sum(map(len, batch.texts))

    def refuse(self) -> None:
        """Take no more: nobody wants them."""
        with self._lock:
            self._refused = True
            self._texts.clear()
            self.size_chars = 0
