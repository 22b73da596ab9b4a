"""Huey on Redis: threads that wait in a blocking pop, and results in Redis."""

import sys
import time
from pathlib import Path
from typing import Any

from huey.exceptions import HueyException
from redis.exceptions import RedisError

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

THREADS = {Slots.MANY: 2, Slots.ONE: 1}
# A client of Huey's polls for its result. These pauses are short enough to cost nothing, and long enough to disturb
# nobody: among many, 150 more results are there after one, and with one job it is as often as we look for ours.
MANY_PAUSE_SECONDS = 0.05
ONE_PAUSE_SECONDS = 0.002


class HueyRedis:
    """`huey_consumer`, a call of the task, and `result.get()`."""

    name = "huey"
    guarantee = "in Redis's memory (no fsync); lost with its worker"
    set_up = "2 threads (1 where jobs come singly), blocking pop, no periodic tasks or health checks; results polled"

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self._folder, self._redis = folder, redis
        self._tasks = client_module("huey_tasks", redis.url)
        self._worker: Child | None = None

    def start(self, slots: Slots) -> None:
        """Start the worker on an empty Redis."""
        self._redis.empty()
        argv = [sys.executable, "-m", "huey.bin.huey_consumer", "huey_tasks.huey", "--workers", str(THREADS[slots])]
        lean = ["--no-periodic", "--disable-health-check", "--quiet"]
        self._worker = Child("huey-worker", [*argv, *lean], self._folder, worker_environment(self._redis.url))
        self.run_many(1)

    def run_many(self, jobs: int) -> None:
        """A call for each submit, and one for each result."""
        try:
            sent = [self._tasks.echo(DOCUMENT) for _ in range(jobs)]
            outputs = [_output(job, MANY_PAUSE_SECONDS) for job in sent]
        except (HueyException, RedisError) as error:
            raise BenchmarkError(f"huey: {type(error).__name__}: {error}") from error
        check_outputs(self.name, outputs, jobs)

    def run_job(self) -> Timing:
        """Time one call of the task and its result."""
        try:
            submitted = time.monotonic_ns()
            job = self._tasks.echo(DOCUMENT)
            acknowledged = time.monotonic_ns()
            output = _output(job, ONE_PAUSE_SECONDS)
        except (HueyException, RedisError) as error:
            raise BenchmarkError(f"huey: {type(error).__name__}: {error}") from error
        return Timing(submitted, acknowledged, output["started_ns"], time.monotonic_ns())

    def parts(self) -> dict[str, list[int]]:
        """Worker and Redis."""
        return {"worker": self._worker.process_ids() if self._worker else [], "redis": self._redis.process_ids()}

    def stop(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.stop()


def _output(job: Any, pause_seconds: float) -> Any:
    return job.get(blocking=True, timeout=RESULT_LIMIT_SECONDS, max_delay=pause_seconds)
