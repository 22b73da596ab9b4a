"""Celery on Redis with the solo pool: the task runs in the worker's main thread, so nothing is handed to a child."""

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from dispatch_systems.base import RESULT_LIMIT_SECONDS, Timing
from harness.errors import BenchmarkError
from harness.processes import Child

WORKERS = Path(__file__).parent.parent / "dispatch_workers"
# What a worker that stands alone does not need: they cost start-up time and messages, and bring nothing here.
QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
DOCUMENT = {"text": "hello"}


class CeleryRedis:
    """`celery worker` and `task.delay()`."""

    name = "celery"
    guarantee = "in Redis's memory (no fsync): lost if Redis or the machine stops; the worker acknowledges on receipt"

    def __init__(self, folder: Path, redis_url: str, pool: str = "solo") -> None:
        self._folder = folder
        self._environment = {"DISPATCH_REDIS_URL": redis_url, "PYTHONPATH": str(WORKERS)}
        self._pool = pool
        self.set_up = f"{pool} pool, one slot, prefetch 1, JSON, no gossip/mingle/heartbeat/events; result by pub/sub"
        self._worker: Child | None = None
        self._tasks: Any = None

    def start(self) -> None:
        """Start the worker, and return once it has answered a job."""
        argv = [sys.executable, "-m", "celery", "--app", "celery_tasks", "worker"]
        argv += ["--pool", self._pool, "--concurrency", "1", *QUIET]
        self._worker = Child("celery-worker", argv, self._folder, self._environment)
        self._tasks = self._client()
        first = self._tasks.stamp.delay(DOCUMENT)
        self._worker.wait_until(first.ready, "answering its first job")

    def run_job(self) -> Timing:
        """Time one `delay()` and its `get()`."""
        try:
            submitted = time.monotonic_ns()
            job = self._tasks.stamp.delay(DOCUMENT)
            acknowledged = time.monotonic_ns()
            started = job.get(timeout=RESULT_LIMIT_SECONDS)
        except Exception as error:
            raise BenchmarkError(f"celery: {type(error).__name__}: {error}") from error
        return Timing(submitted, acknowledged, started, time.monotonic_ns())

    def stop(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.stop()

    def _client(self) -> Any:
        """The same module that the worker runs: that is how a Celery client knows its tasks."""
        os.environ["DISPATCH_REDIS_URL"] = self._environment["DISPATCH_REDIS_URL"]
        sys.path.insert(0, str(WORKERS))
        return importlib.import_module("celery_tasks")
