"""A platform under load while something breaks: jobs go in, four workers work them, then everything is counted.

What must hold after each drill: every acknowledged job has ended, with one result that is its own; its attempts are
numbered without a gap and say what its counters say; the queue's counts are zero; no file is left that nobody has.

`MACHINESHOP_DRILL_JOBS` says how many go in. Most do nothing, so that thousands fit into a usual run. One in
ten sleeps, so that some are in hand whenever something breaks, and they come in batches, for as long as things break.
"""

import asyncio
import json
import math
import os
import random
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from machineshop.app import Platform
from machineshop.blobs.layout import FILES
from machineshop.config import Settings
from machineshop.parts import Parts
from machineshop.runtime.choice import Choice
from machineshop.store.engines import with_driver
from platform_process import PlatformProcess, wait_for, write_worker

JOBS = int(os.environ.get("MACHINESHOP_DRILL_JOBS", "5000"))
WORKERS = 4
BATCHES = 25
# In all that they take at least, so that the last comes when what breaks meanwhile has broken.
BATCHES_SECONDS = 3.0
READ_AT_ONCE = 1000
JOBS_PER_SLOW = 10
JOBS_PER_FILE = 50
MODEL = "drill"
# What a broken platform may take to end all jobs once nothing breaks any more.
SETTLE_SECONDS = 120.0
CLAIM_SECONDS = 4

WORKER = f"""
import os, pathlib, tempfile, time
import sprocket

class Worker(sprocket.Sprocket):
    concurrency = 8

    def predict(self, args):
        number = args["number"]
        if number % {JOBS_PER_SLOW} == 0:
            time.sleep(0.25)
        outputs = {{"number": number, "pid": os.getpid()}}
        if number % {JOBS_PER_FILE} == 0:
            path = pathlib.Path(tempfile.mkdtemp()) / "output.txt"
            path.write_text(str(number))
            outputs["file"] = sprocket.FileOutput(path)
        return outputs
"""

TABLES = f"""
[deploy]
gpu_type = "none"
gpu_count = 0
memory = 1
min_replicas = {WORKERS}
max_replicas = {WORKERS}

[deploy.environment_variables]
SPROCKET_CLAIM_TIMEOUT_SECONDS = "{CLAIM_SECONDS}"
"""


class Drill:
    """One run. `seed` decides what is broken when."""

    def __init__(self, platform: PlatformProcess, folder: Path, jobs: int = JOBS, seed: int = 1) -> None:
        self.platform = platform
        self.random = random.Random(seed)
        self._folder = folder
        self._jobs = jobs
        self.acknowledged: dict[str, int] = {}
        self._failure: BaseException | None = None

    def deploy(self) -> None:
        """Bring up the workers."""
        self.platform.deploy(write_worker(self._folder / "worker", MODEL, WORKER, tables=TABLES))
        wait_for(lambda: len(self.workers()) == WORKERS, "all workers run")

    @contextmanager
    def load(self) -> Iterator[None]:
        """Submit all jobs meanwhile; on the way out every one of them has been acknowledged."""
        thread = threading.Thread(target=self._submit_all, name="submitter", daemon=True)
        thread.start()
        yield
        thread.join(SETTLE_SECONDS)
        assert not thread.is_alive(), "the jobs could not be submitted"
        if self._failure is not None:
            raise self._failure
        assert len(self.acknowledged) == self._jobs

    def progress(self) -> int:
        """How many jobs are acknowledged so far."""
        return len(self.acknowledged)

    def wait_for_progress(self, share: float) -> None:
        """Wait until this share of the jobs is acknowledged."""
        wait_for(
            lambda: self._failure is not None or self.progress() >= share * self._jobs,
            f"{share:.0%} of the jobs are submitted",
            SETTLE_SECONDS,
        )

    def workers(self) -> list[int]:
        """The processes that work, by what they run and where."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                here = (entry / "cwd").readlink().is_relative_to(self.platform.data_dir)
            except OSError:  # it ended meanwhile
                continue
            if here and b"sprocket" in command:
                found.append(int(entry.name))
        return found

    def kill_a_worker(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to one of the workers, whichever."""
        pid = self.random.choice(wait_for(self.workers, "a worker runs"))
        os.kill(pid, number)
        return pid

    def break_at_random(self, times: int, seconds: float, action: Callable[[], object]) -> None:
        """Do something several times, this far apart in the mean."""
        for _ in range(times):
            action()
            time.sleep(self.random.uniform(0, 2 * seconds))

    def settle(self) -> None:
        """Wait until every acknowledged job has ended."""
        wait_for(self._all_ended, "every job has ended", SETTLE_SECONDS, every=0.25)

    def check(self) -> Counter[str]:
        """Count everything; returns how often each outcome of an attempt happened."""
        rows = self.rows(
            "SELECT id, state, attempt, retries, releases, payload, outputs, info FROM jobs ORDER BY sequence"
        )
        # Those below 0 were submitted to be refused.
        rows = [row for row in rows if json.loads(row[5])["number"] >= 0]
        attempts: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        for job_id, number, outcome in self.rows("SELECT job_id, number, outcome FROM attempts"):
            attempts[job_id].append((number, outcome))
        numbers = Counter(json.loads(row[5])["number"] for row in rows)
        assert numbers == Counter(range(self._jobs)), "each number is one job"
        assert set(self.acknowledged) == {row[0] for row in rows}
        for job_id, state, attempt, retries, releases, payload, outputs, info in rows:
            history = sorted(attempts[job_id])
            outcomes = Counter(outcome for _, outcome in history)
            about = f"job {job_id}: {state}, attempts {history}, {info}"
            assert state in {"done", "failed"}, about
            assert [number for number, _ in history] == list(range(1, attempt + 1)), about
            assert (outcomes["lose"], outcomes["release"]) == (retries, releases), about
            assert outcomes["finish"] == (1 if state == "done" else 0), about
            assert history[-1][1] == ("finish" if state == "done" else "give_up"), about
            if state == "done":
                assert json.loads(outputs)["number"] == json.loads(payload)["number"], about
        ((pending, running),) = self.rows("SELECT pending, running FROM queues")
        assert (pending, running) == (0, 0)
        done = {row[0]: json.loads(row[6]) for row in rows if row[1] == "done"}
        self._check_results(done)
        self._check_files(done)
        return Counter(outcome for history in attempts.values() for _, outcome in history)

    def rows(self, query: str) -> list[Any]:
        """What the store has."""
        url = self.platform.environment.get("MACHINESHOP_DATABASE_URL")
        url = url or f"sqlite:///{self.platform.data_dir / 'machineshop.db'}"
        engine = create_engine(with_driver(url), poolclass=NullPool)
        with engine.connect() as conn:
            return list(conn.execute(text(query)).all())

    def _submit_all(self) -> None:
        try:
            size = math.ceil(self._jobs / BATCHES)
            for first in range(0, self._jobs, size):
                batch = [
                    {"model": MODEL, "payload": {"number": number}, "idempotency_key": f"number-{number}"}
                    for number in range(first, min(first + size, self._jobs))
                ]
                for number, job_id in enumerate(self._submit(batch), first):
                    self.acknowledged[job_id] = number
                time.sleep(BATCHES_SECONDS / BATCHES)
        except BaseException as error:  # noqa: BLE001 - raised again where the test waits
            self._failure = error

    def _submit(self, batch: list[dict[str, Any]]) -> list[str]:
        """Submit until it is acknowledged; the keys see to it that no job comes twice."""
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                with self.platform.client() as client:
                    answer = client.post("/v1/queue/submit", json=batch)
                if answer.status_code == 200:
                    return [job["request_id"] for job in answer.json()["data"]]
                assert answer.status_code in {503, 507}, answer.text
                assert int(answer.headers["Retry-After"]) > 0
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, "no submit gets through"
            time.sleep(0.1)

    def _all_ended(self) -> bool:
        try:
            with self.platform.client() as client:
                answer = client.get("/v1/queue/metrics", params={"model": MODEL})
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and answer.json()["total_jobs"] == 0

    def _check_results(self, outputs: dict[str, dict[str, Any]]) -> None:
        """Whoever asks sees of each acknowledged job one result, the one that the store has."""
        ids = list(self.acknowledged)
        seen: dict[str, Any] = {}
        with self.platform.client() as client:
            for first in range(0, len(ids), READ_AT_ONCE):
                body = {"model": MODEL, "request_ids": ids[first : first + READ_AT_ONCE], "include": "outputs"}
                for job in client.post("/v1/queue/results", json=body).json()["data"]:
                    assert job["request_id"] not in seen, job
                    seen[job["request_id"]] = job
        assert seen.keys() == self.acknowledged.keys()
        for job_id, job in seen.items():
            assert job["status"] == ("done" if job_id in outputs else "failed"), job
            if job_id in outputs:
                assert job["outputs"] == outputs[job_id], job

    def _check_files(self, outputs: dict[str, dict[str, Any]]) -> None:
        """Each file that a result names has its content; after a look by the cleaner no other bytes are left."""
        named = {job_id: output["file"] for job_id, output in outputs.items() if output["number"] % JOBS_PER_FILE == 0}
        with self.platform.client() as client:
            for job_id, url in named.items():
                assert client.get(httpx.URL(url).path).text == str(outputs[job_id]["number"])
        self.platform.close()
        left = asyncio.run(_clean(self.platform))
        assert left == len(named), f"{left} files are left, {len(named)} results have one"


async def _clean(platform: PlatformProcess) -> int:
    """Clean up as the server does, a week later; how many files' bytes there are then."""
    url = platform.environment.get("MACHINESHOP_DATABASE_URL")
    stopped = Platform(Settings(data_dir=platform.data_dir, port=0, database_url=url))
    stopped.data_dir.open()
    stopped.build(Choice())
    parts = stopped.parts
    parts.database.start()
    try:
        await parts.files.clean(time.time() + 7 * 86400)
        return len([entry async for entry in _entries(parts)])
    finally:
        await asyncio.to_thread(parts.storage.close)
        await asyncio.to_thread(parts.database.close)
        stopped.data_dir.close()


async def _entries(parts: Parts) -> Any:
    for entry in await parts.storage.blobs.entries(FILES):
        yield entry
