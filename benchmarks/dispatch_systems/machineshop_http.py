"""Machineshop over HTTP: a worker that `jig deploy` brought up, and a client with one keep-alive connection."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from dispatch_systems.base import RESULT_LIMIT_SECONDS, Timing
from harness.errors import BenchmarkError
from harness.platform import Client, Platform, copy_project

PROJECT = Path(__file__).parent.parent / "dispatch_workers" / "machineshop_worker"
DEPLOYMENT = "dispatch-benchmark"
DOCUMENT = {"text": "hello"}
# The first look comes this long after the acknowledgement, so that looking does not slow down what is measured.
RESULT_POLL_SECONDS = 0.002


class MachineshopHttp:
    """`POST /v1/queue/submit`, then `GET /v1/queue/status` until the job is done."""

    name = "machineshop"
    set_up = (
        "`machineshop serve` (SQLite, process runtime), worker by `jig deploy`; "
        f"http.client, status polled every {RESULT_POLL_SECONDS * 1e3:.0f} ms"
    )
    guarantee = "on disk (SQLite WAL, synchronous=FULL: one fsync before the answer), and so is every result"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._platform: Platform | None = None
        self._client: Client | None = None

    def start(self) -> None:
        """Start the platform, deploy the worker, and return once it has answered a job."""
        self._platform = Platform(self._folder)
        self._platform.wait_until_ready()
        project = copy_project(PROJECT, self._folder / "project", ["jig.toml", "worker.py"])
        self._platform.deploy(project, DEPLOYMENT)
        self._client = self._platform.client()
        self.run_job()

    def run_job(self) -> Timing:
        """Time one submit and the polls for its result."""
        assert self._client is not None, "start() comes first"
        submitted = time.monotonic_ns()
        answer = self._client.post("/v1/queue/submit", {"model": DEPLOYMENT, "payload": DOCUMENT})
        acknowledged = time.monotonic_ns()
        job = self._result(self._client, answer["request_id"])
        return Timing(submitted, acknowledged, job["outputs"]["started_ns"], time.monotonic_ns())

    def stop(self) -> None:
        """End the platform and its worker."""
        if self._platform is not None:
            self._platform.stop()

    def _result(self, client: Client, request_id: str) -> Any:
        query = urlencode({"model": DEPLOYMENT, "request_id": request_id})
        deadline = time.monotonic() + RESULT_LIMIT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(RESULT_POLL_SECONDS)
            job = client.get(f"/v1/queue/status?{query}")
            if job["status"] == "done":
                return job
            if job["status"] not in ("pending", "running"):
                raise BenchmarkError(f"machineshop: the job is {job['status']}: {job.get('error')}")
        raise BenchmarkError(f"machineshop: no result after {RESULT_LIMIT_SECONDS:.0f} s")
