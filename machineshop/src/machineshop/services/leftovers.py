"""Removes the bytes and rows of files that nobody will ever see.

What an attempt has uploaded is garbage as soon as the attempt is over without a result, an output when its job is gone,
and a blob when neither a file nor an upload under way has it. Where the storage is this process's alone (the data
directory is locked), all that an earlier one left unfinished can go as soon as this one begins. Where servers share it,
what another one has under way looks the same as what it has left behind, and stays for as long as an upload may take.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from machineshop.blobs import Storage
from machineshop.blobs.layout import FILES
from machineshop.errors import DiskFull, MachineshopError, StoreUnavailable, Unavailable
from machineshop.store import files as store
from machineshop.store.database import Database

log = logging.getLogger(__name__)

# Longer than any upload takes, and long enough for an operator to look at what a defect left.
LEFTOVER_SECONDS = 24 * 3600
# Looking at every blob costs more with each of them, and finds what a defect or a crash left, which is rare.
SWEEP_SECONDS = 3600
# Longer than a database takes to make up its mind about a commit whose answer was lost.
DOUBT_SECONDS = 60
# A file's time of change lags behind the clock by a tick of the system.
_TICK_SECONDS = 0.1
_BATCH = 500
_JOBS_AT_A_TIME = 20 * _BATCH


class Leftovers:
    """Knows the blobs that are on their way to become files, and clears away after all others."""

    def __init__(
        self, database: Database, storage: Storage, clock: Callable[[], float], *, shared: bool = False
    ) -> None:
        self._database = database
        self._shared = shared
        self._blobs = storage.blobs
        self._uploads = storage.uploads
        self._clock = clock
        self._started_at = clock()
        self._swept_at = float("-inf")
        self._in_flight: set[str] = set()
        self._doubtful: dict[str, float] = {}
        self._walked_to = ""

    @asynccontextmanager
    async def in_flight(self, blob_keys: Sequence[str], *, removed: bool = True) -> AsyncIterator[None]:
        """Leave blobs alone that no row names yet; the block stores them and the rows.

        Arguments:
            blob_keys: The blobs' keys.
            removed: Remove them where the rows are refused. Otherwise, and where it is not known whether they were
                stored, they are looked at later.
        """
        self._in_flight.update(blob_keys)
        try:
            yield
        except BaseException as error:
            if removed and _is_refusal(error):
                await self._delete(blob_keys)
            else:
                for key in blob_keys:
                    self.doubt(key)
            raise
        finally:
            self._in_flight.difference_update(blob_keys)

    def doubt(self, blob_key: str) -> None:
        """Look at a blob again later: it is not known whether the row that names it was stored."""
        self._doubtful[blob_key] = self._clock()

    async def discard(self, blob_keys: list[str]) -> None:
        """Remove blobs that rows name no longer, unless others do; later, where readers are sent to their addresses."""
        if not self._blobs.signs:
            await self.remove(blob_keys)
            return
        for key in blob_keys:
            self.doubt(key)

    async def remove(self, blob_keys: list[str]) -> int:
        """Remove those of these blobs that no row names; returns how many."""
        return await self._delete_unused(blob_keys)

    async def clean(self, now: float) -> int:
        """Remove what is garbage by now; returns how many blobs, and uploads that broke off."""
        removed = await self._remove_of_ended_attempts()
        removed += await self._remove_of_gone_jobs()
        removed += await self._remove_doubtful(now)
        if now >= self._swept_at + SWEEP_SECONDS:
            removed += await self._sweep(now)
            self._swept_at = now
        if removed:
            log.info("files.cleaned removed=%d", removed)
        return removed

    async def _remove_of_ended_attempts(self) -> int:
        """Blobs before rows: nobody can read them any longer, and a row that is left names them again."""
        removed = 0
        while keys := await self._database.read(store.blobs_of_ended_attempts, _BATCH):
            # What a file of this name had before the attempt's took its place may be another file's as well.
            kept = await self._database.read(store.visible_blob_keys, keys)
            await self._delete([key for key in keys if key not in kept])
            await self._database.write(store.forget_attempt_files, keys)
            removed += len(keys)
        return removed

    async def _remove_of_gone_jobs(self) -> int:
        """Rows before blobs, since somebody may be about to read them; one batch of all jobs that have files.

        The next call goes on behind it, so what one look costs does not grow with the number of files. The jobs that
        are removed first come first.
        """
        job_ids = await self._database.read(store.jobs_with_files, self._walked_to, _JOBS_AT_A_TIME)
        self._walked_to = job_ids[-1] if len(job_ids) == _JOBS_AT_A_TIME else ""
        removed = 0
        for at in range(0, len(job_ids), _BATCH):
            gone = await self._database.read(store.gone_jobs, job_ids[at : at + _BATCH])
            if gone:
                keys = await self._database.write(store.remove_files_of_jobs, sorted(gone))
                removed += await self._delete_unused(keys)
        return removed

    async def _remove_doubtful(self, now: float) -> int:
        due = [key for key, since in self._doubtful.items() if since <= now - DOUBT_SECONDS]
        removed = await self._delete_unused(due)
        for key in due:
            del self._doubtful[key]
        return removed

    async def _sweep(self, now: float) -> int:
        before = now - LEFTOVER_SECONDS
        if not self._shared:
            before = max(before, self._started_at - _TICK_SECONDS)
        removed = len(await self._uploads.remove_older(FILES, before))
        old = [entry.key for entry in await self._blobs.entries(FILES) if entry.modified_at < before]
        return removed + await self._delete_unused(old)

    async def _delete_unused(self, blob_keys: list[str]) -> int:
        """Delete those that no row names. What is in flight is looked at first: it may get its row meanwhile."""
        removed = 0
        for at in range(0, len(blob_keys), _BATCH):
            batch = [key for key in blob_keys[at : at + _BATCH] if key not in self._in_flight]
            used = await self._database.read(store.used_blob_keys, batch)
            unused = [key for key in batch if key not in used]
            await self._delete(unused)
            removed += len(unused)
        return removed

    async def _delete(self, blob_keys: Sequence[str]) -> None:
        for key in blob_keys:
            await self._blobs.delete(key)


def _is_refusal(error: BaseException) -> bool:
    """Whether no row names the blobs, nor ever will. Such blobs do not wait: they may be what the disk is full of."""
    if isinstance(error, StoreUnavailable):
        return error.is_undone
    return isinstance(error, DiskFull) or (isinstance(error, MachineshopError) and not isinstance(error, Unavailable))
