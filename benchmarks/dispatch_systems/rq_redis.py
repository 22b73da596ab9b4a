"""RQ on Redis: SimpleWorker, which runs jobs in the worker's process instead of a fork for each."""

import sys
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job

from dispatch_systems.base import RESULT_LIMIT_SECONDS, Timing
from harness.errors import BenchmarkError
from harness.processes import Child

WORKERS = Path(__file__).parent.parent / "dispatch_workers"
DOCUMENT = {"text": "hello"}


class RqRedis:
    """`rq worker` and `queue.enqueue()`."""

    name = "rq"
    set_up = "SimpleWorker (no fork), job descriptions not logged; result by a blocking stream read"
    guarantee = "in Redis's memory (no fsync): lost if Redis or the machine stops"

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._queue = Queue("dispatch", connection=Redis.from_url(redis_url))
        self._worker: Child | None = None

    def start(self) -> None:
        """Start the worker, and return once it has answered a job."""
        argv = [sys.executable, "-m", "rq.cli", "worker", "--url", self._redis_url, "--path", str(WORKERS)]
        argv += ["--worker-class", "rq.worker.SimpleWorker", "--quiet", "--disable-job-desc-logging", "dispatch"]
        self._worker = Child("rq-worker", argv, self._folder)
        first = self._enqueue()
        self._worker.wait_until(lambda: first.latest_result() is not None, "answering its first job")

    def run_job(self) -> Timing:
        """Time one `enqueue()` and the wait for its result."""
        try:
            submitted = time.monotonic_ns()
            job = self._enqueue()
            acknowledged = time.monotonic_ns()
            result = job.latest_result(timeout=int(RESULT_LIMIT_SECONDS))
        except RedisError as error:
            raise BenchmarkError(f"rq: {type(error).__name__}: {error}") from error
        if result is None or not isinstance(result.return_value, int):
            raise BenchmarkError(f"rq: no result: {result and result.exc_string}")
        return Timing(submitted, acknowledged, result.return_value, time.monotonic_ns())

    def stop(self) -> None:
        """End the worker."""
        if self._worker is not None:
            self._worker.stop()

    def _enqueue(self) -> Job:
        return self._queue.enqueue("rq_tasks.stamp", DOCUMENT, result_ttl=600)
