"""A submit at zero replicas: how long until its result, beside how long the same worker takes to start by itself?"""

import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from harness.errors import BenchmarkError
from harness.platform import Client, Platform
from harness.processes import free_port
from harness.report import Row

NAME = "sleeper"
LIMIT_SECONDS = 60.0
POLL_SECONDS = 0.005
# The bar: what the platform may add to the worker's own start.
MOST_ADDED_SECONDS = 1.0
WORKER = """
import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        return {"text": "done"}
"""
CONFIG = f"""
name = "{NAME}"
worker = "worker:Worker"

[deploy]
min_replicas = 0
max_replicas = 1
autoscaling = {{metric = "QueueBacklogPerWorker", target = 1, idle_seconds = 0.5, stabilization_seconds = 0}}
"""

T = TypeVar("T")


def measure(folder: Path, rounds: int) -> list[Row]:
    """The rows of this measure."""
    project = folder / "project"
    project.mkdir()
    (project / "worker.py").write_text(WORKER)
    (project / "jig.toml").write_text(CONFIG)
    (folder / "platform").mkdir()
    platform = Platform(folder / "platform")
    try:
        platform.wait_until_ready()
        platform.deploy(project)
        client = platform.client()
        from_zero(client)  # makes the environment of the bundle
        pairs = [(from_zero(client), own_start(project)) for _ in range(rounds)]
    finally:
        platform.stop()
    for number, (ours, own) in enumerate(pairs, 1):
        print(f"from zero, round {number}: {ours:.3f} s from submit to result, {own:.3f} s own start")
    ours, own = (statistics.median(values) for values in zip(*pairs, strict=True))
    added = statistics.median(ours - own for ours, own in pairs)
    return [
        Row("from_zero", "s", "lower", "submit to result", ours, "the worker's own start", own),
        Row("from_zero_added", "s", "lower", "above its own start", added, bar=MOST_ADDED_SECONDS),
    ]


def from_zero(client: Client) -> float:
    """Wait until nothing runs, submit, and wait for the result; the seconds of the last two."""
    _until(lambda: _sleeps(client), "asleep")
    began = time.monotonic()
    job = client.post("/v1/queue/submit", {"model": NAME, "payload": {}})["request_id"]
    path = f"/v1/queue/status?model={NAME}&request_id={job}"
    _until(lambda: client.get(path)["status"] == "done", "done")
    return time.monotonic() - began


def own_start(project: Path) -> float:
    """The seconds from the start of the worker's process, by hand, to its first healthy answer."""
    port = free_port()
    environment = {**os.environ, "PORT": str(port)}
    began = time.monotonic()
    worker = subprocess.Popen(
        [sys.executable, "-m", "sprocket", "worker:Worker"],
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(lambda: _answers(port), "healthy")
        return time.monotonic() - began
    finally:
        worker.terminate()
        worker.wait(LIMIT_SECONDS)


def _sleeps(client: Client) -> bool:
    deployment = client.get(f"/v1/deployments/{NAME}")
    return bool(deployment["status"] == "ScaledToZero")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise BenchmarkError(f"{NAME} is not {what} after {LIMIT_SECONDS:.0f} s.")
        time.sleep(POLL_SECONDS)
