"""Dramatiq on Redis: four threads that fetch far ahead, which gave the most, and results in Redis."""

import sys
from pathlib import Path

from dramatiq.errors import DramatiqError
from redis.exceptions import RedisError

from harness.errors import BenchmarkError
from harness.processes import Child
from harness.redis_server import RedisServer
from queue_systems.base import (
    DOCUMENT,
    RESULT_LIMIT_SECONDS,
    Slots,
    check_outputs,
    client_module,
    worker_environment,
)

THREADS = 4
# Messages that the worker fetches at once. With the default, twice the threads, it does a third as many jobs.
PREFETCH = "1000"


class DramatiqRedis:
    """The command `dramatiq`, `actor.send()` and `message.get_result()`."""

    name = "dramatiq"
    guarantee = "in Redis's memory (no fsync)"
    set_up = f"{THREADS} threads, queue prefetch {PREFETCH}; results middleware on Redis"

    def __init__(self, folder: Path, redis: RedisServer) -> None:
        self._folder, self._redis = folder, redis
        self._tasks = client_module("dramatiq_tasks", redis.url)
        self._worker: Child | None = None

    def start(self, slots: Slots) -> None:  # noqa: ARG002 - it is measured with many jobs alone
        """Start the worker on an empty Redis."""
        self._redis.empty()
        argv = [sys.executable, "-m", "dramatiq", "dramatiq_tasks", "--processes", "1", "--threads", str(THREADS)]
        environment = {**worker_environment(self._redis.url), "dramatiq_queue_prefetch": PREFETCH}
        self._worker = Child("dramatiq-worker", [*argv, "--skip-logging"], self._folder, environment)
        self.run_many(1)

    def run_many(self, jobs: int) -> None:
        """A call for each submit, and one for each result."""
        limit_ms = int(RESULT_LIMIT_SECONDS * 1e3)
        try:
            sent = [self._tasks.echo.send(DOCUMENT) for _ in range(jobs)]
            outputs = [message.get_result(block=True, timeout=limit_ms) for message in sent]
        except (DramatiqError, RedisError) as error:
            raise BenchmarkError(f"dramatiq: {type(error).__name__}: {error}") from error
        check_outputs(self.name, outputs, jobs)

    def parts(self) -> dict[str, list[int]]:
        """Worker and Redis."""
        return {"worker": self._worker.process_ids() if self._worker else [], "redis": self._redis.process_ids()}

    def stop(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.stop()
