"""Bringing one file of a volume to this machine: in pieces, and verified against its digest on the way."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import BinaryIO, TypeVar

from machineshop.errors import MachineshopError
from machineshop.runtime.base import VolumeFile, VolumeSource

SILENCE_SECONDS = 120.0
"""How long nothing may come of a file that is being read."""
SMALL_BYTES = 1024 * 1024
"""Of a file up to this size all pieces are taken at once: a thread for each of them costs more than the work."""

T = TypeVar("T")


class FileDiffers(MachineshopError):
    """Its file {path!r} did not arrive as it was uploaded: {how}."""


class SourceSilent(MachineshopError):
    """Nothing of its file {path!r} came for {seconds:g} s."""


async def fetch(source: VolumeSource, file: VolumeFile, target: BinaryIO) -> None:
    """Write a file's bytes to `target`, an open file.

    Raises:
        FileDiffers: They are not those that were uploaded.
        SourceSilent: They do not come.
        ArtifactMissing: They are gone.
        StorageUnavailable: Where they are does not answer.
        OSError: This machine's disk refused.
    """
    sha256, size, pieces = hashlib.sha256(), 0, list[bytes]()

    def write() -> None:
        for piece in pieces:
            sha256.update(piece)
            target.write(piece)
        target.flush()

    stream = await source.open_file(file)
    try:
        while (piece := await _next(stream, file)) is not None:
            size += len(piece)
            if size > file.size:
                raise FileDiffers(path=file.path, how=f"it has more than its {file.size} bytes")
            pieces.append(piece)
            if file.size > SMALL_BYTES:
                await asyncio.to_thread(write)
                pieces.clear()
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
    if file.size <= SMALL_BYTES:
        await asyncio.to_thread(write)
    if size < file.size:
        raise FileDiffers(path=file.path, how=f"it has {size} of its {file.size} bytes")
    if sha256.hexdigest() != file.digest:
        raise FileDiffers(path=file.path, how=f"its digest is {sha256.hexdigest()}, and not {file.digest}")


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do the same with all items, several at a time; the first that fails ends it."""
    left = iter(items)

    async def take() -> None:
        for item in left:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(take())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _next(stream: AsyncIterator[bytes], file: VolumeFile) -> bytes | None:
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await anext(stream, None)
    except TimeoutError:
        raise SourceSilent(path=file.path, seconds=SILENCE_SECONDS) from None
