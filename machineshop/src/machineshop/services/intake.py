"""Takes in jobs that come one by one: what comes while others are being stored is stored together afterwards.

An idle queue stores a job at once. Under load, one statement adds many jobs, and the queue is counted once for all.
"""

import asyncio

from machineshop.errors import MachineshopError, StoreUnavailable
from machineshop.models import Job
from machineshop.store import jobs
from machineshop.store.database import Database

# More in one transaction would make the first of them wait for the last.
MAX_TOGETHER = 200
# A transaction that moves so many jobs takes about as long as it takes to change threads for it.
BRIEF_JOBS = 16
BRIEF_BYTES = 256 * 1024


class _Comer:
    """A job on its way in, and who waits for that."""

    __slots__ = ("job", "stored")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.stored: asyncio.Future[Job] = asyncio.get_running_loop().create_future()


class Intake:
    """The way into all queues."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Who waits while others of the same queue are being stored; no entry where nobody is.
        self._gathered: dict[str, list[_Comer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def insert(self, job: Job) -> Job:
        """Store a job; gives the job that its idempotency key stood for already, if there is one.

        Raises:
            MachineshopError: As `store.jobs.insert`; it was not stored.
        """
        gathered = self._gathered.get(job.deployment_id)
        if gathered is not None:
            comer = _Comer(job)
            gathered.append(comer)
            return await comer.stored
        self._gathered[job.deployment_id] = []
        try:
            (stored,) = await self._database.write_briefly(job.deployment_id, jobs.insert, [job])
        finally:
            self._go_on(job.deployment_id)
        return stored

    def _go_on(self, deployment_id: str) -> None:
        """Store those who came meanwhile."""
        gathered = self._gathered.pop(deployment_id)
        if gathered:
            self._gathered[deployment_id] = gathered[MAX_TOGETHER:]
            task = asyncio.get_running_loop().create_task(self._insert_all(deployment_id, gathered[:MAX_TOGETHER]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _insert_all(self, deployment_id: str, comers: list[_Comer]) -> None:
        try:
            new = [comer.job for comer in comers]
            size_bytes = sum(len(bytes(job.payload)) for job in new)
            is_brief = len(new) <= BRIEF_JOBS and size_bytes <= BRIEF_BYTES
            write = self._database.write_briefly if is_brief else self._database.write_in_queue
            stored = await write(deployment_id, jobs.insert, new)
        except StoreUnavailable as error:
            for comer in comers:
                _refuse(comer, error)
        except MachineshopError:  # of one of them, or there is no room for all: each on its own
            for comer in comers:
                await self._insert_one(comer)
        except BaseException as error:
            for comer in comers:
                _refuse(comer, error)
            raise
        else:
            for comer, job in zip(comers, stored, strict=True):
                _accept(comer, job)
        finally:
            self._go_on(deployment_id)

    async def _insert_one(self, comer: _Comer) -> None:
        job = comer.job
        try:
            (stored,) = await self._database.write_in_queue(job.deployment_id, jobs.insert, [job])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to this one
            _refuse(comer, error)
        else:
            _accept(comer, stored)


def _accept(comer: _Comer, stored: Job) -> None:
    if not comer.stored.done():  # its submitter may have gone away; the job is stored all the same
        comer.stored.set_result(stored)


def _refuse(comer: _Comer, error: BaseException) -> None:
    if not comer.stored.done():
        comer.stored.set_exception(error)
