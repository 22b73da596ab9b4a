"""arq on Redis: a hundred slots on one event loop; a hundred submits and results under way."""

import asyncio
import sys
from pathlib import Path

import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job

from harness.at_once import at_once
from harness.errors import BenchmarkError
from harness.processes import Child
from harness.redis_server import RedisServer
from queue_systems.base import DOCUMENT, RESULT_LIMIT_SECONDS, Slots, check_outputs, worker_environment

# Calls that the client makes at once.
GATHERED = 100
# A client of arq's polls for its result.
PAUSE_SECONDS = 0.02


class ArqOnRedis:
    """The command `arq`, `pool.enqueue_job()` and `job.result()`."""

    name = "arq"
    guarantee = "in Redis's memory (no fsync); kept there until its worker is done"

    def __init__(self, folder: Path, redis: RedisServer, slots: int = 100) -> None:
        self.set_up = f"max_jobs {slots}, poll_delay 10 ms, results kept; client on uvloop, {GATHERED} calls at a time"
        self._folder, self._redis, self._slots = folder, redis, slots
        self._worker: Child | None = None
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._pool: ArqRedis | None = None

    def start(self, slots: Slots) -> None:  # noqa: ARG002 - it is measured with many jobs alone
        """Start the worker on an empty Redis."""
        self._redis.empty()
        argv = [sys.executable, "-m", "arq", "arq_tasks.WorkerSettings"]
        environment = {**worker_environment(self._redis.url), "QUEUE_SLOTS": str(self._slots)}
        self._worker = Child("arq-worker", argv, self._folder, environment)
        self._pool = self._runner.run(create_pool(RedisSettings.from_dsn(self._redis.url)))
        self.run_many(1)

    def run_many(self, jobs: int) -> None:
        """Gathered submits, then gathered results."""
        try:
            outputs = self._runner.run(self._run_many(jobs))
        except Exception as error:
            raise BenchmarkError(f"arq: {type(error).__name__}: {error}") from error
        check_outputs(self.name, outputs, jobs)

    async def _run_many(self, jobs: int) -> list[object]:
        assert self._pool is not None, "start() comes first"
        pool = self._pool
        sent = await at_once(GATHERED, jobs, lambda _: pool.enqueue_job("echo", DOCUMENT))
        return await at_once(GATHERED, jobs, lambda number: _output(sent[number]))

    def parts(self) -> dict[str, list[int]]:
        """Worker and Redis."""
        return {"worker": self._worker.process_ids() if self._worker else [], "redis": self._redis.process_ids()}

    def stop(self) -> None:
        """End the worker, and the client's connections."""
        if self._worker is not None:
            self._worker.stop()
        if self._pool is not None:
            self._runner.run(self._pool.aclose())
            self._pool = None


async def _output(job: Job | None) -> object:
    return job and await job.result(timeout=RESULT_LIMIT_SECONDS, poll_delay=PAUSE_SECONDS)
