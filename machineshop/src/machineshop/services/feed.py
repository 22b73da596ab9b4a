"""What followers of jobs are told: each change of a queue after the last one that they know, or one job as it is.

All of it is read from the store, by the number that every change of a queue has: so a follower may come back after any
time, to any server, and goes on where it was. Several changes of one job that nobody has read are one: its last.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection

from machineshop.models import Job
from machineshop.services.changes import Changes
from machineshop.states import TERMINAL_STATES, JobState
from machineshop.store import chunks, jobs, queues
from machineshop.store.chunks import Chunks
from machineshop.store.database import Database

# A page ends with what is longest of these: so much is in memory for each reader at most, but for one large job.
PAGE_JOBS = 1_000
PAGE_BYTES = 1024 * 1024
# How many jobs are fetched at once for it.
_FETCHED_JOBS = 100
# Followers at the same place read the same page, once: it is kept for that, for as long as it is new.
_NEW_SECONDS = 0.5
_LAST_SEQUENCE = 2**62


class Cursor(NamedTuple):
    """The last change that a follower knows."""

    change: int
    sequence: int
    """The last job of those that changed together with it."""


class Page(msgspec.Struct, frozen=True):
    """Changes, in their order."""

    text: bytes
    """As they are sent."""
    end: Cursor
    more: bool
    """There are others after it already."""
    over: bool
    """No job of this queue will change again: its deployment is deleted, and none is left."""


class FoundJob(msgspec.Struct, frozen=True):
    """One job, as a follower finds it."""

    text: bytes
    """As it is sent."""
    change: int
    ended: bool
    attempt: int
    given: Chunks
    """What it has given of its outputs since the follower looked."""


class _Reading(NamedTuple):
    """A page that is being read, or was."""

    told: int
    page: asyncio.Future[Page]


class Feed:
    """Reads for followers.

    Args:
        database: Where the jobs lie.
        changes: Who tells that there is something new.
        render: Makes of a job what its followers are sent; `contents` says whether with inputs and outputs.
    """

    def __init__(self, database: Database, changes: Changes, render: Callable[[Job, bool], bytes]) -> None:
        self._database = database
        self.changes = changes
        self._render = render
        self._readings: dict[tuple[str, Cursor], _Reading] = {}

    async def begin(self, deployment_id: str, last: Cursor | None) -> Cursor:
        """Where a follower begins: after what it knows, or with what changes from now on.

        A place that the queue has not come to yet, as from a database that is no more, is taken for now.
        """
        now = await self._database.read(queues.last_change, deployment_id)
        return last if last is not None and last.change <= now else Cursor(now, _LAST_SEQUENCE)

    async def page(self, deployment_id: str, after: Cursor) -> Page:
        """The changes of a queue after a place.

        Raises:
            StoreUnavailable: The database cannot be read now.
        """
        key = (deployment_id, after)
        reading = self._readings.get(key)
        if reading is None or reading.told != self.changes.told:
            page = asyncio.ensure_future(self._database.read(self._read_page, deployment_id, after))
            page.add_done_callback(lambda done: self._grow_old(key, done))
            reading = self._readings[key] = _Reading(self.changes.told, page)
        # One follower that goes away leaves the page to the others.
        return await asyncio.shield(reading.page)

    async def job(self, project_id: str, job_id: str, attempt: int, known_chunks: int) -> FoundJob | None:
        """One job as it is now, with what it has given since a follower knew so much of an attempt.

        Returns:
            The job; None once it has been removed.
        """
        return await self._database.read(self._read_job, project_id, job_id, attempt, known_chunks)

    def _grow_old(self, key: tuple[str, Cursor], page: "asyncio.Future[Page]") -> None:
        failed = page.cancelled() or page.exception() is not None
        asyncio.get_running_loop().call_later(0 if failed else _NEW_SECONDS, self._drop, key, page)

    def _drop(self, key: tuple[str, Cursor], page: "asyncio.Future[Page]") -> None:
        if key in self._readings and self._readings[key].page is page:
            del self._readings[key]

    def _read_page(self, conn: Connection, deployment_id: str, after: Cursor) -> Page:
        # Asked first, so that what changed last is in the page that says that nothing will.
        over = queues.is_over(conn, deployment_id)
        texts: list[bytes] = []
        number = size = 0
        while number < PAGE_JOBS and size < PAGE_BYTES:
            found = jobs.changed_since(conn, deployment_id, after.change, after.sequence, _FETCHED_JOBS)
            texts += [self._render(job, False) for job in found]
            size += sum(map(len, texts[number:]))
            number += len(found)
            if found:
                after = Cursor(found[-1].change, found[-1].sequence)
            if len(found) < _FETCHED_JOBS:
                return Page(b"".join(texts), after, more=False, over=over)
        return Page(b"".join(texts), after, more=True, over=False)

    def _read_job(
        self, conn: Connection, project_id: str, job_id: str, attempt: int, known_chunks: int
    ) -> FoundJob | None:
        job = jobs.get_by_id(conn, project_id, job_id)
        if job is None:
            return None
        given = Chunks(0, [])
        # Of an attempt that has just ended a follower is told the rest; one that comes later gets the result alone.
        is_known = job.attempt == attempt
        if job.state is JobState.RUNNING or (job.state in TERMINAL_STATES and is_known):
            given = chunks.read(conn, job_id, job.attempt, known_chunks if is_known else 0)
        return FoundJob(self._render(job, True), job.change, job.state in TERMINAL_STATES, job.attempt, given)
