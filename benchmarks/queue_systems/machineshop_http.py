"""Machineshop over HTTP: workers that `jig deploy` brought up, and clients with keep-alive connections."""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import uvloop

from harness.at_once import at_once
from harness.errors import BenchmarkError
from harness.platform import Client, Platform
from harness.postgres_server import PostgresServer
from harness.raw_http import Line, Pool, get, post
from queue_systems.base import AT_ONCE, DOCUMENT, WORKERS, Deadline, Slots, Timing, check_outputs

WORKER = WORKERS / "machineshop_worker" / "worker.py"
# The classes in that file.
CLASSES = {Slots.MANY: "Many", Slots.ONE: "One"}
# The most that one request may carry.
BATCH = 1000
# The first look at a single job comes this long after its acknowledgement, and others follow at this pace: looking must
# not slow down what is looked at.
ONE_PAUSE_SECONDS = 0.002
MANY_PAUSE_SECONDS = 0.02


class Machineshop:
    """`POST /v1/queue/submit`, then `POST /v1/queue/results` or `GET /v1/queue/status` until the jobs are done.

    The server runs from `bring_up` to `take_down`, as the peers' Redis and Postgres do; the workers come and go.
    """

    guarantee = "on disk (one fsync before the answer), and so is every result"
    set_up = "500 slots, 1,000 jobs in a request; singly: a worker as it comes, a request for each submit and status"

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer | None = None,
        *,
        name: str = "machineshop",
        classes: Mapping[Slots, str] = CLASSES,
    ) -> None:
        self.name = name if postgres is None else f"{name}-postgres"
        self._classes = classes
        self._folder, self._postgres = folder / self.name, postgres
        self._folder.mkdir()
        self.database_url: str | None = None
        if postgres is not None:
            postgres.make_database(self.name)
            self.database_url = postgres.url(self.name)
        self.platform = Platform(self._folder, self.database_url)
        self._client: Client | None = None
        self._line: Line | None = None
        self._submit = b""
        self._slots = Slots.ONE

    def bring_up(self) -> None:
        """Wait for the server, and deploy both workers with no replica yet."""
        self.platform.wait_until_ready()
        self._client = self.platform.client()
        for slots in self._classes:
            project = self._folder / deployment_of(slots)
            project.mkdir()
            shutil.copy(WORKER, project)
            worker = f'name = "{deployment_of(slots)}"\nworker = "worker:{self._classes[slots]}"\n'
            (project / "jig.toml").write_text(f"{worker}[deploy]\nmin_replicas = 0\n")
            self.platform.deploy(project)

    def take_down(self) -> None:
        """End the server and its workers."""
        self.platform.stop()

    def start(self, slots: Slots) -> None:
        """Have one replica of the worker ready, and a first job done."""
        self._slots = slots
        self.platform.scale(deployment_of(slots), 1)
        self._line, self._submit = Line(self.platform.port), self._prepared_submit()
        self.run_job()

    def stop(self) -> None:
        """End the replica."""
        if self._line is not None:
            self._line.close()
        self.platform.scale(deployment_of(self._slots), 0)

    def parts(self) -> dict[str, list[int]]:
        """Server, worker with its supervisor, and Postgres where that is the store."""
        parts = {"server": [self.platform.pid], "worker": self.platform.worker_process_ids()}
        return parts if self._postgres is None else {**parts, "postgres": self._postgres.process_ids()}

    def run_many(self, jobs: int) -> None:
        """Arrays of submits, then results in the same arrays; of each, the last job says when to look at all."""
        model, deadline = deployment_of(self._slots), Deadline(self.name)
        batches = []
        for first in range(0, jobs, BATCH):
            job = {"model": model, "payload": DOCUMENT}
            answer = self.client.post("/v1/queue/submit", [job] * min(BATCH, jobs - first))
            batches.append([submitted["request_id"] for submitted in answer["data"]])
        outputs: list[Any] = []
        for batch in batches:
            self._results(batch[-1:], deadline)
            outputs += self._results(batch, deadline)
        check_outputs(self.name, outputs, jobs)

    def run_singly(self, jobs: int) -> None:
        """A request for each submit, and one or more for each status."""
        check_outputs(self.name, uvloop.run(self._run_singly(jobs)), jobs)

    def run_job(self) -> Timing:
        """Time one submit, which is a prepared request, and the polls for its result."""
        assert self._line is not None, "start() comes first"
        line = self._line
        return self.time_job(lambda: msgspec.json.decode(line.ask(self._submit)))

    def run_job_by_library(self) -> Timing:
        """The same by the standard library's HTTP client."""
        job = {"model": deployment_of(self._slots), "payload": DOCUMENT}
        return self.time_job(lambda: self.client.post("/v1/queue/submit", job))

    def time_job(self, submit: Callable[[], Any]) -> Timing:
        """Time one job that `submit`, which returns the answer, hands in."""
        submitted = time.monotonic_ns()
        request_id = submit()["request_id"]
        acknowledged = time.monotonic_ns()
        time.sleep(ONE_PAUSE_SECONDS)
        job = self._result(request_id, Deadline(self.name), ONE_PAUSE_SECONDS)
        return Timing(submitted, acknowledged, job["outputs"]["started_ns"], time.monotonic_ns())

    @property
    def client(self) -> Client:
        """The connection, once it is up."""
        assert self._client is not None, "bring_up() comes first"
        return self._client

    async def _run_singly(self, jobs: int) -> list[Any]:
        submit = self._prepared_submit()
        async with Pool(self.platform.port, AT_ONCE) as pool:
            answers = await at_once(AT_ONCE, jobs, lambda _: pool.ask(submit))
            request_ids = [msgspec.json.decode(answer)["request_id"] for answer in answers]
            # Once the last is done, all are: one worker takes them in order. Till then nobody else is disturbed.
            self._result(request_ids[-1], Deadline(self.name), MANY_PAUSE_SECONDS)
            asked = [get(self._status_path(request_id), self.platform.api_key) for request_id in request_ids]
            jobs_read = await at_once(AT_ONCE, jobs, lambda number: pool.ask(asked[number]))
        return [msgspec.json.decode(job)["outputs"] for job in jobs_read]

    def _prepared_submit(self) -> bytes:
        body = msgspec.json.encode({"model": deployment_of(self._slots), "payload": DOCUMENT})
        return post("/v1/queue/submit", self.platform.api_key, body)

    def _status_path(self, request_id: str) -> str:
        return f"/v1/queue/status?{urlencode({'model': deployment_of(self._slots), 'request_id': request_id})}"

    def _result(self, request_id: str, deadline: Deadline, pause_seconds: float) -> Any:
        while True:
            job = self.client.get(self._status_path(request_id))
            if self._is_done(job):
                return job
            deadline.check(f"job {request_id} is {job['status']}")
            time.sleep(pause_seconds)

    def _results(self, request_ids: list[str], deadline: Deadline) -> list[Any]:
        """The outputs of these jobs, once all are done."""
        outputs: list[Any] = []
        missing = request_ids
        while missing:
            body = {"model": deployment_of(self._slots), "request_ids": missing}
            jobs = self.client.post("/v1/queue/results", body)["data"]
            missing = [job["request_id"] for job in jobs if not self._is_done(job)]
            outputs += [job["outputs"] for job in jobs if job["status"] == "done"]
            if missing:
                deadline.check(f"{len(missing)} jobs are not done")
                time.sleep(MANY_PAUSE_SECONDS)
        return outputs

    def _is_done(self, job: Any) -> bool:
        if job["status"] not in {"pending", "running", "done"}:
            raise BenchmarkError(f"{self.name}: job {job['request_id']} is {job['status']}: {job.get('error')}")
        return bool(job["status"] == "done")


def deployment_of(slots: Slots) -> str:
    """The name of the deployment whose worker is set up like that."""
    return f"queue-benchmark-{slots}"


class ByLibrary:
    """The same system, whose single submits go by the standard library's HTTP client."""

    def __init__(self, machineshop: Machineshop) -> None:
        self.name = f"{machineshop.name}-http.client"
        self.guarantee, self.set_up = machineshop.guarantee, machineshop.set_up
        self.start, self.stop, self.parts = machineshop.start, machineshop.stop, machineshop.parts
        self.run_job, self.run_many = machineshop.run_job_by_library, machineshop.run_many
