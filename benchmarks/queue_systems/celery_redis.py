"""Celery on Redis with the solo pool: the task runs in the worker's main thread, so nothing is handed to a child."""

import sys
import time
from pathlib import Path

from celery.result import ResultSet

from harness.errors import BenchmarkError
from harness.processes import Child
from harness.redis_server import RedisServer
from queue_systems.base import (
    DOCUMENT,
    RESULT_LIMIT_SECONDS,
    Slots,
    Timing,
    check_outputs,
    client_module,
    worker_environment,
)

# What a worker that stands alone does not need: they cost start-up time and messages, and bring nothing here.
QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]


class CeleryRedis:
    """`celery worker`, `task.apply_async()` and its results."""

    name = "celery"
    guarantee = "in Redis's memory (no fsync); the worker acknowledges on receipt"

    def __init__(self, folder: Path, redis: RedisServer, threads: int = 0) -> None:
        self._pool = ["threads", "--concurrency", str(threads)] if threads else ["solo"]
        pool = f"{threads} threads" if threads else "solo pool (prefork and threads are slower)"
        self.set_up = f"{pool}, prefetch 4, no gossip, mingle, heartbeat or events"
        self._folder, self._redis = folder, redis
        self._tasks = client_module("celery_tasks", redis.url)
        self._worker: Child | None = None

    def start(self, slots: Slots) -> None:  # noqa: ARG002 - the solo pool has one slot, and is the fastest
        """Start the worker on an empty Redis."""
        self._redis.empty()
        argv = [sys.executable, "-m", "celery", "--app", "celery_tasks", "worker", "--pool", *self._pool, *QUIET]
        self._worker = Child("celery-worker", argv, self._folder, worker_environment(self._redis.url))
        first = self._tasks.echo.delay(DOCUMENT)
        self._worker.wait_until(first.ready, "answering its first job")

    def run_many(self, jobs: int) -> None:
        """One producer for all submits, one wait for all results."""
        try:
            with self._tasks.app.producer_pool.acquire(block=True) as producer:
                sent = [self._tasks.echo.apply_async((DOCUMENT,), producer=producer) for _ in range(jobs)]
            outputs = ResultSet(sent, app=self._tasks.app).join_native(timeout=RESULT_LIMIT_SECONDS)
        except Exception as error:
            raise BenchmarkError(f"celery: {type(error).__name__}: {error}") from error
        check_outputs(self.name, outputs, jobs)

    def run_job(self) -> Timing:
        """Time one `delay()` and its `get()`."""
        try:
            submitted = time.monotonic_ns()
            job = self._tasks.echo.delay(DOCUMENT)
            acknowledged = time.monotonic_ns()
            output = job.get(timeout=RESULT_LIMIT_SECONDS)
        except Exception as error:
            raise BenchmarkError(f"celery: {type(error).__name__}: {error}") from error
        return Timing(submitted, acknowledged, output["started_ns"], time.monotonic_ns())

    def parts(self) -> dict[str, list[int]]:
        """Worker and Redis."""
        return {"worker": self._worker.process_ids() if self._worker else [], "redis": self._redis.process_ids()}

    def stop(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.stop()
