"""A large file in, a large file out: how fast beside curl, and how much memory the worker takes for it.

Both read from and write to the object storage of one server in the same run. The file is 2 GiB of zeros without a block
on disk, so that reading it costs nobody anything.
"""

import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from harness.errors import BenchmarkError
from harness.platform import Client, Platform
from harness.report import Row, number

WORKER = Path(__file__).parents[1] / "worker_models" / "files" / "worker.py"
MODEL = "files-worker"
STORED = "input.bin"
MIB = 1024 * 1024
LIMIT_SECONDS = 120.0
PAUSE_SECONDS = 0.01
MEMORY_BAR_MB = 100.0
"""What the worker may grow by, whatever the size of the file."""


@dataclass(frozen=True)
class Transfer:
    """One file that went one way.

    Args:
        mb_per_second: its size by the time from the first request to the last answer.
        grown_mb: by how much the worker's resident memory grew at most; 0 for curl.
    """

    mb_per_second: float
    grown_mb: float = 0.0


class Stand:
    """A server, a worker and the file."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.platform = Platform(folder)
        self.size_bytes = size_bytes
        self.file = folder / "output.bin"
        self.file.touch()
        self._folder = folder

    def bring_up(self) -> None:
        """Deploy the worker, and have it work on a small job."""
        self.platform.wait_until_ready()
        project = self._folder / MODEL
        project.mkdir()
        shutil.copy(WORKER, project)
        (project / "jig.toml").write_text(f'name = "{MODEL}"\nworker = "worker:Passing"\n')
        self.platform.deploy(project)
        with self.file.open("wb") as file:
            file.truncate(self.size_bytes)
        self.curl_out()
        self._job({})

    def curl_out(self) -> Transfer:
        """Have curl store the file."""
        wish = self._client.post("/v1/storage/upload-request", {"filename": STORED})
        return self._curl("--upload-file", str(self.file), wish["upload_url"]["url"])

    def curl_in(self) -> Transfer:
        """Have curl fetch the file."""
        target = self._folder / "fetched.bin"
        try:
            return self._curl("--output", str(target), "--oauth2-bearer", self.platform.api_key, self._url)
        finally:
            target.unlink(missing_ok=True)

    def job_in(self) -> Transfer:
        """Run a job with the file as its input."""
        with self._watched() as watched:
            outputs = self._job({"file": self._url})
        if outputs != {"bytes": self.size_bytes}:
            raise BenchmarkError(f"the worker got a file of {outputs} instead of {self.size_bytes} bytes.")
        return watched[0]

    def job_out(self) -> Transfer:
        """Run a job with the file as its output."""
        with self._watched() as watched:
            self._job({"path": str(self.file)})
        return watched[0]

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self.platform.port}/v1/storage/{STORED}"

    @property
    def _client(self) -> Client:
        return self.platform.client()

    def _curl(self, *arguments: str) -> Transfer:
        began = time.monotonic()
        curl = subprocess.run(
            ["curl", "--silent", "--show-error", "--fail", "--max-time", str(LIMIT_SECONDS), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if curl.returncode:
            raise BenchmarkError(f"curl ended with {curl.returncode}: {curl.stderr}")
        return Transfer(self._rate(began))

    def _job(self, payload: dict[str, Any]) -> Any:
        client, deadline = self._client, time.monotonic() + LIMIT_SECONDS
        request_id = client.post("/v1/queue/submit", {"model": MODEL, "payload": payload})["request_id"]
        status = f"/v1/queue/status?{urlencode({'model': MODEL, 'request_id': request_id})}"
        while (job := client.get(status))["status"] != "done":
            if job["status"] not in ("pending", "running") or time.monotonic() > deadline:
                raise BenchmarkError(f"the job is {job['status']}: {job.get('error')}")
            time.sleep(PAUSE_SECONDS)
        return job["outputs"]

    @contextmanager
    def _watched(self) -> Iterator[list[Transfer]]:
        """Time the block, and find by how much the worker grew meanwhile."""
        processes = self.platform.worker_process_ids()
        before = {process: _status_mb(process, "VmRSS:") for process in processes}
        for process in processes:  # the kernel's note of the most that it has had begins anew
            Path(f"/proc/{process}/clear_refs").write_text("5")
        watched: list[Transfer] = []
        began = time.monotonic()
        yield watched
        rate = self._rate(began)
        watched.append(Transfer(rate, max(_status_mb(p, "VmHWM:") - before[p] for p in processes)))

    def _rate(self, began: float) -> float:
        return self.size_bytes / 1e6 / (time.monotonic() - began)


def measure_files(folder: Path, size_mib: int, rounds: int) -> list[Row]:
    """The rows of both ways.

    Args:
        folder: an empty one, on the disk that is to be used.
        size_mib: of the file.
        rounds: how often each way is gone, by us and by curl in turn.
    """
    print(f"\nA file of {size_mib} MiB in and out:")
    stand = Stand(folder, size_mib * MIB)
    try:
        stand.bring_up()
        return [
            *_rows("input", *_taken("in", rounds, stand.job_in, stand.curl_in)),
            *_rows("output", *_taken("out", rounds, stand.job_out, stand.curl_out)),
        ]
    finally:
        stand.platform.stop()


def _taken(
    way: str, rounds: int, ours: Callable[[], Transfer], curl: Callable[[], Transfer]
) -> tuple[list[Transfer], list[Transfer]]:
    """What each took in each round; who comes first changes from round to round."""
    results: dict[str, list[Transfer]] = {"sprocket": [], "curl": []}
    for turn in range(rounds):
        both = [("sprocket", ours), ("curl", curl)]
        for name, transfer in both if turn % 2 == 0 else reversed(both):
            taken = transfer()
            results[name].append(taken)
            memory = f", {taken.grown_mb:.0f} MB more memory" if name == "sprocket" else ""
            print(f"  round {turn + 1}  {way:3}  {name:8}  {number(taken.mb_per_second)} MB/s{memory}", flush=True)
    return results["sprocket"], results["curl"]


def _rows(way: str, ours: Sequence[Transfer], curl: Sequence[Transfer]) -> list[Row]:
    return [
        Row(
            name=f"{way}_rate",
            unit="MB/s",
            better="higher",
            ours_name="sprocket",
            ours=statistics.median(transfer.mb_per_second for transfer in ours),
            peer_name="curl",
            peer=statistics.median(transfer.mb_per_second for transfer in curl),
        ),
        Row(
            name=f"{way}_memory",
            unit="MB",
            better="lower",
            ours_name="sprocket",
            ours=max(transfer.grown_mb for transfer in ours),
            bar=MEMORY_BAR_MB,
        ),
    ]


def _status_mb(process: int, name: str) -> float:
    """A line of a process's status, in MB."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise BenchmarkError(f"process {process} has no {name}")
