"""The examples as their users meet them: their classes, and real worker processes that serve them over HTTP."""

import http.client
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from ports import reserve_port

EXAMPLES = Path(__file__).parents[2] / "examples"
START_SECONDS = 60
ANSWER_SECONDS = 60


class WorkerProcess:
    """One `python -m sprocket TARGET` in an example's folder."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_SECONDS, trust_env=False)

    def generate(self, payload: dict[str, Any]) -> httpx.Response:
        return self.client.post("/generate", json=payload)

    @contextmanager
    def asked(self, payload: dict[str, Any]) -> Iterator[http.client.HTTPConnection]:
        """Send a request to /generate without waiting for its answer; hang up at the end of the block."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("POST", "/generate", json.dumps(payload))
            yield connection
        finally:
            connection.close()

    def health(self) -> int | None:
        """The status of /health; None while nobody listens."""
        try:
            return self.client.get("/health").status_code
        except httpx.TransportError:
            return None

    def requests_in_flight(self) -> float:
        for line in self.client.get("/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == "requests_inflight":
                return float(value)
        raise AssertionError("/metrics lacks requests_inflight")

    def wait_until(self, condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait for a condition; the process's log is in the failure."""
        deadline = time.monotonic() + seconds
        while not condition():
            running = self.process.poll() is None
            assert running, f"the worker ended with {self.process.returncode}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{self.log.read_text()}"
            time.sleep(0.01)

    def stop(self) -> int:
        """Ask it to end; gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def serving(example: str, target: str, folder: Path) -> Iterator[WorkerProcess]:
    """Serve an example for the time of the block."""
    log = folder / "worker.log"
    port = reserve_port()
    command = [sys.executable, "-m", "sprocket", target, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=EXAMPLES / example, env=plain_environment(), stdout=output, stderr=subprocess.STDOUT
        )
    worker = WorkerProcess(process, port, log)
    try:
        worker.wait_until(lambda: worker.health() == 200)
        yield worker
    finally:
        worker.client.close()
        process.kill()
        process.wait()


def plain_environment() -> dict[str, str]:
    """The environment without what would make the worker look for a platform."""
    hidden = ("TOGETHER_", "MACHINESHOP_", "SPROCKET_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden) and name != "PORT"}


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], WorkerProcess]]:
    """Start an example's worker, to be stopped at the end of all tests: `serve("slow", "worker:Slow")`."""
    with ExitStack() as stack:
        yield lambda example, target: stack.enter_context(serving(example, target, tmp_path_factory.mktemp(example)))


@pytest.fixture(scope="session")
def load() -> Callable[[str], ModuleType]:
    """Import an example's `worker` module, as its folder's own: every example has one of that name."""

    def import_worker(example: str) -> ModuleType:
        folder = str(EXAMPLES / example)
        sys.path.insert(0, folder)
        sys.modules.pop("worker", None)
        try:
            return importlib.import_module("worker")
        finally:
            sys.path.remove(folder)
            sys.modules.pop("worker", None)

    return import_worker
