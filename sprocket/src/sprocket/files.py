"""A job's files: inputs fetched into a directory of its own before predict, outputs published after it.

`Workbench` asks for both; `Downloader`, `Uploader` and `Scratch` do them.
"""

from __future__ import annotations

import asyncio
import base64
import mimetypes
from pathlib import Path
from typing import TypeGuard

from .config import Config
from .downloads import Downloader, safe_name
from .errors import InputError, PlatformError, StaleAttemptError
from .inputs import Inputs
from .job import Job
from .outcome import Canceled, Done, Failed, Fault, Outcome, Stale
from .outputs import Encoded, FileOutput
from .platform import Platform
from .processing import Processing
from .scratch import Scratch, remove_leftovers
from .uploads import Uploader
from .worker import Sprocket, Worker

DATA_URI_LIMIT_BYTES = 64 * 1024**2
"""A bigger file in an HTTP answer would take several times its size in memory."""


class Files:
    """The files of all jobs of one worker. Use inside a running event loop; `close` it."""

    def __init__(
        self, config: Config, platform: Platform | None, inputs: Inputs, worker: type[Worker] = Sprocket
    ) -> None:
        self._inputs = inputs
        self._processing = Processing(worker.processor)
        self._downloader = Downloader(
            config,
            platform,
            nested=worker.nested_inputs,
            process=self._processing.process if self._processing.of_inputs else None,
        )
        self._uploader = Uploader(platform) if platform is not None else None
        self._scratch = Scratch()
        self._directories: dict[Job, Path] = {}

    @property
    def finishes_outputs(self) -> bool:
        """Whether outputs are changed before they are sent."""
        return self._processing.of_outputs

    async def start(self) -> Fault | None:
        """Begin; give what went wrong. What killed workers left is removed meanwhile."""
        asyncio.get_running_loop().run_in_executor(None, remove_leftovers)
        return await self._processing.start()

    async def close(self) -> None:
        """Close connections, remove files."""
        await self._downloader.close()
        if self._uploader is not None:
            await self._uploader.close()
        self._processing.close()
        self._scratch.close()

    def has_inputs(self, job: Job) -> bool:
        """Whether there is something to fetch."""
        return bool(self._downloader.files_in(self._inputs.fetchable(job.payload)))

    async def fetch(self, job: Job) -> None:
        """Fetch the inputs, and put their local paths into the payload. `clear` must follow once the job has ended.

        Raises:
            InvalidInputError: the payload does not fit; nothing has been fetched in vain.
            InputError: one could not be fetched, or the job was cancelled meanwhile.
        """
        if not self.has_inputs(job):
            return
        self._inputs.check(job.payload)
        self._directories[job] = directory = self._scratch.make()
        fetching = asyncio.ensure_future(self._downloader.fetch(self._inputs.fetchable(job.payload), directory))
        with job.interruptible(fetching.cancel):
            try:
                job.payload = {**job.payload, **await fetching}
            except asyncio.CancelledError:
                fetching.cancel()
                if not job.cancel_requested:
                    raise
                raise InputError("cancelled") from None

    def has_outputs(self, outcome: Outcome) -> TypeGuard[Done]:
        """Whether there is something to publish."""
        return isinstance(outcome, Done) and (self.finishes_outputs or outcome.outputs.has_files)

    async def publish(self, job: Job, outcome: Outcome) -> Outcome:
        """Finish the outputs: the processor changes them, and the addresses of their files take the files' places.

        Raises:
            OutputError: what came of them cannot be sent.
            Exception: whatever the processor raised.
        """
        if not self.has_outputs(outcome):
            return outcome
        publishing = asyncio.ensure_future(self._publish(job, outcome.outputs))
        with job.interruptible(publishing.cancel):
            try:
                return await publishing
            except asyncio.CancelledError:
                publishing.cancel()
                if not job.cancel_requested:
                    raise
                return Canceled()

    def has_fetched(self, job: Job) -> bool:
        """Whether `clear` has something to do."""
        return job in self._directories

    async def clear(self, job: Job) -> None:
        """Remove what was fetched for a job."""
        directory = self._directories.pop(job, None)
        if directory is not None:
            await self._scratch.remove(directory)
            # A processor that could not be interrupted may just be writing there.
            self._processing.call(self._scratch.remove_now, directory)

    async def _publish(self, job: Job, outputs: Encoded) -> Outcome:
        if self.finishes_outputs:
            outputs = await self._processing.finish(job, outputs)
        addresses: dict[FileOutput, str] = {}
        for file, name in zip(outputs.files, names_of(outputs.files), strict=True):
            try:
                addresses[file] = await self._address_of(job, file, name)
            except StaleAttemptError as error:  # noqa: PERF203 - the first that fails ends it
                return Stale(str(error))
            except (PlatformError, ValueError, OSError) as error:
                return Failed(f"the output {file.name} could not be published: {error}")
        return Done(Encoded((outputs.text(addresses),)))

    async def _address_of(self, job: Job, file: FileOutput, name: str) -> str:
        if self._uploader is None or not job.queued:
            return await asyncio.get_running_loop().run_in_executor(None, data_uri, file)
        return await self._uploader.upload(job, f"{job.id}-{name}", file)


def names_of(files: list[FileOutput]) -> list[str]:
    """Give each file a harmless name that no other one has: `out.png`, `out-2.png`."""
    names: list[str] = []
    for file in files:
        first = name = safe_name(file.name)
        number = 1
        while name in names:
            number += 1
            stem, dot, suffix = first.rpartition(".")
            name = f"{stem}-{number}.{suffix}" if dot else f"{first}-{number}"
        names.append(name)
    return names


def data_uri(path: Path) -> str:
    """Give a file as a `data:` URI in base64.

    Raises:
        ValueError: it is too large for that.
    """
    if path.stat().st_size > DATA_URI_LIMIT_BYTES:
        raise ValueError(f"a file in an HTTP answer may have at most {DATA_URI_LIMIT_BYTES} bytes")
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
