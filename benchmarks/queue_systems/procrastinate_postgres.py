"""Procrastinate on Postgres, the durable peer: batches deferred in one statement, ten slots, woken by NOTIFY.

It keeps a job's status but not what the job returned, so what is read back is the status.
"""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import uvloop
from procrastinate import App
from procrastinate.exceptions import ProcrastinateException

from harness.at_once import at_once
from harness.errors import BenchmarkError
from harness.postgres_server import PostgresServer
from harness.processes import Child
from queue_systems.base import AT_ONCE, DOCUMENT, WORKERS, Deadline, Slots, client_module, worker_environment

T = TypeVar("T")

SLOTS = {Slots.MANY: 10, Slots.ONE: 1}
BATCH = 1000
PAUSE_SECONDS = 0.005
DATABASE = "procrastinate"
DONE = "succeeded"


class ProcrastinatePostgres:
    """`app.run_worker()`, `task.batch_defer_async()` or `task.defer_async()`, and the jobs' status."""

    name = "procrastinate"
    guarantee = "on disk (Postgres as it comes: fsync before the answer)"
    set_up = "concurrency 10, deferred in batches, statuses read as a list; singly: concurrency 1, a call for each"

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        self._folder, self._postgres = folder, postgres
        self._url = postgres.url(DATABASE)
        self._tasks = client_module("procrastinate_tasks", self._url)
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._worker: Child | None = None
        self._opened = False

    def start(self, slots: Slots) -> None:
        """Start the worker on an empty database."""
        self._postgres.make_database(DATABASE)
        self._run(self._open())
        argv = [sys.executable, str(WORKERS / "procrastinate_tasks.py"), str(SLOTS[slots])]
        self._worker = Child("procrastinate-worker", argv, self._folder, worker_environment(self._url))
        self.run_many(1)

    def run_many(self, jobs: int) -> None:
        """Batches, and one list of all statuses once the last job is done."""
        self._run(self._run_many(jobs))

    def run_singly(self, jobs: int) -> None:
        """A call for each submit, and one or more for each status."""
        self._run(self._run_singly(jobs))

    def parts(self) -> dict[str, list[int]]:
        """Worker and Postgres."""
        return {"worker": self._worker.process_ids() if self._worker else [], "postgres": self._postgres.process_ids()}

    def stop(self) -> None:
        """End the worker, and the client's connections."""
        if self._worker is not None:
            self._worker.stop()
        if self._opened:
            self._opened = False
            self._run(self._app.close_async())

    @property
    def _app(self) -> App:
        app: App = self._tasks.app
        return app

    def _run(self, steps: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(steps)
        except (ProcrastinateException, psycopg.Error) as error:
            raise BenchmarkError(f"procrastinate: {type(error).__name__}: {error}") from error

    async def _open(self) -> None:
        await self._app.open_async()
        self._opened = True
        await self._app.schema_manager.apply_schema_async()

    async def _run_many(self, jobs: int) -> None:
        ids: list[int] = []
        for first in range(0, jobs, BATCH):
            ids += await self._tasks.echo.batch_defer_async(*[DOCUMENT] * min(BATCH, jobs - first))
        deadline = Deadline(self.name)
        await self._wait_until_done(ids[-1], deadline)
        while True:
            done = {job.id for job in await self._app.job_manager.list_jobs_async(status=DONE)}
            if done.issuperset(ids):
                return
            deadline.check("not all jobs are done")
            await asyncio.sleep(PAUSE_SECONDS)

    async def _run_singly(self, jobs: int) -> None:
        ids: list[int] = await at_once(AT_ONCE, jobs, lambda _: self._tasks.echo.defer_async(**DOCUMENT))
        deadline = Deadline(self.name)
        await self._wait_until_done(ids[-1], deadline)
        await at_once(AT_ONCE, jobs, lambda number: self._wait_until_done(ids[number], deadline))

    async def _wait_until_done(self, job_id: int, deadline: Deadline) -> None:
        while (await self._app.job_manager.get_job_status_async(job_id)).value != DONE:
            deadline.check(f"job {job_id} is not done")
            await asyncio.sleep(PAUSE_SECONDS)
