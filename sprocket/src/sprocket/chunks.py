"""What a streaming model gives of its outputs while predict runs: one chunk for each `yield`.

A predict that is a generator is run to its end here, in the model's thread or on its event loop. Each chunk is on its
way to whoever follows the job at once: with the heartbeats to the platform, or as an event to the HTTP client.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from .outputs import Encoded, encode_chunk

if TYPE_CHECKING:
    from .job import Job

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


def drain(job: Job, generator: Generator[object, Any, object]) -> object:
    """Run a synchronous predict to its end; give what it returned, else all that it gave.

    Once the job is cancelled the generator is closed where it is: `GeneratorExit` is raised at its `yield`.

    Raises:
        OutputError: it gave what JSON cannot carry.
    """
    kept: list[str] = []
    with contextlib.closing(generator):
        while not job.see_cancel():
            try:
                value = next(generator)
            except StopIteration as end:
                return _all_given(job, kept) if end.value is None else end.value
            _give(job, value, kept)
    return None


async def drain_async(job: Job, generator: AsyncGenerator[object, Any]) -> object:
    """Run an asynchronous predict to its end; give all that it gave.

    Raises:
        OutputError: it gave what JSON cannot carry.
        asyncio.CancelledError: the job is cancelled; the generator has seen it at its `await`, or was closed.
    """
    kept: list[str] = []
    async with contextlib.aclosing(generator):
        async for value in generator:
            _give(job, value, kept)
            await asyncio.sleep(0)  # One that never waits for anything lets the others in, and a cancel.
    return _all_given(job, kept)


def _give(job: Job, value: object, kept: list[str]) -> None:
    text = encode_chunk(value)
    if job.keeps_chunks:
        kept.append(text)
    job.add_chunks([text])


def _all_given(job: Job, kept: list[str]) -> Encoded:
    if not job.keeps_chunks:
        return Encoded(("{}",))
    return Encoded((f'{{"chunks":[{",".join(kept)}]}}',))
