"""For the tests of a model: one job in a thread, or a whole worker against a queue in the same process.

from sprocket.testing import run_job, worker

def test_greets():
    assert run_job(Hello, {"name": "Ada"}) == {"text": "Hello, Ada!"}

def test_works_the_queue():
    with worker(Hello) as hello:
        assert hello.submit({"name": "Ada"}).result() == {"text": "Hello, Ada!"}
"""

from __future__ import annotations

from sprocket.errors import JobCanceledError, JobFailedError, JobTimeoutError, WorkerEndedError, WorkerTestError

from .stage import run_job
from .under_test import SubmittedJob, WorkerUnderTest, worker

__all__ = [
    "JobCanceledError",
    "JobFailedError",
    "JobTimeoutError",
    "SubmittedJob",
    "WorkerEndedError",
    "WorkerTestError",
    "WorkerUnderTest",
    "run_job",
    "worker",
]
