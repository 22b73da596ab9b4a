"""Runs an author's processor in a thread of its own, so that nothing it does holds up the worker."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from .errors import ConfigError
from .job import Job
from .outcome import Fault, fault_of
from .outputs import Encoded, encode_outputs
from .processor import InputOutputProcessor
from .response import FileResponse

T = TypeVar("T")

END_SECONDS = 1.0
"""For a processor that is in the middle of something when the worker ends."""


class Processing:
    """One worker's processor. Use inside a running event loop; `close` it.

    Args:
        kind: the class that the worker names.

    Raises:
        ConfigError: it is no such class.

    Attributes:
        of_inputs: whether it wants to see input files.
        of_outputs: whether it wants to see outputs.
    """

    def __init__(self, kind: object) -> None:
        if not isinstance(kind, type) or not issubclass(kind, InputOutputProcessor):
            raise ConfigError(
                f"the worker's class attribute `processor` must be a class derived from sprocket.InputOutputProcessor, "
                f"not {kind!r}"
            )
        self.of_inputs = kind.process_input_file is not InputOutputProcessor.process_input_file
        self.of_outputs = kind.finalize is not InputOutputProcessor.finalize
        self._kind = kind
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._processor = InputOutputProcessor()

    async def start(self) -> Fault | None:
        """Make the processor, where there is something for it to do; give what went wrong."""
        if not self.of_inputs and not self.of_outputs:
            return None
        self._loop = asyncio.new_event_loop()
        # A daemon: code that never returns must not keep a stopped worker alive.
        self._thread = threading.Thread(target=_live, args=(self._loop,), name="sprocket-processor", daemon=True)
        self._thread.start()
        try:
            self._processor = await self._run(self._made())
        except Exception as error:  # noqa: BLE001 - whatever its author's code raises
            return fault_of("processor", error)
        return None

    def close(self) -> None:
        """End the thread, as soon as it comes to that."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(END_SECONDS)

    async def process(self, response: FileResponse, destination: Path) -> None:
        """Make an input file of what was downloaded.

        Raises:
            Exception: whatever the processor raised.
        """
        await self._run(self._processed(response, destination))

    async def finish(self, job: Job, outputs: Encoded) -> Encoded:
        """Have the outputs changed before they are sent.

        Raises:
            OutputError: what came of them cannot be sent.
            Exception: whatever the processor raised.
        """
        return await self._run(self._finished(job, outputs))

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a function called when a file that is just being processed is through with."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    async def _made(self) -> InputOutputProcessor:
        return self._kind()

    async def _processed(self, response: FileResponse, destination: Path) -> None:
        waiting = self._processor.process_input_file(response, destination)
        if inspect.isawaitable(waiting):
            await waiting

    async def _finished(self, job: Job, outputs: Encoded) -> Encoded:
        changed: Any = self._processor.finalize(job.id, job.payload, outputs.value())
        return encode_outputs(await changed if inspect.isawaitable(changed) else changed, "finalize")

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the processor's thread."""
        if self._loop is None:
            raise RuntimeError("the processor has not been started")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_guarded(work), self._loop))


def _live(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.run_until_complete(_cancel_all(loop))
    loop.close()


async def _guarded(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:  # it would end the thread, and every job that waits for it
        raise RuntimeError(f"the processor raised {error!r}") from error


async def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    others = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
