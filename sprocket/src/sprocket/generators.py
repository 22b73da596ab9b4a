"""A predict that is a generator, run to its end: in the model's thread, or on its event loop.

Each chunk is on its way to whoever follows the job at once: with the heartbeats to the platform, or as an event to the
HTTP client.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Generator
from typing import Any

from .job import Job
from .outputs import Encoded, encode_chunk


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
