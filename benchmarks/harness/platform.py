"""A Machineshop of the benchmark's own, used as its users do: `machineshop serve`, `jig deploy`, and the HTTP API."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import BenchmarkError
from harness.processes import Child, accepts_connections, child_environment, free_port

DEPLOY_LIMIT_SECONDS = 120.0
REQUEST_LIMIT_SECONDS = 30.0
READY_POLL_SECONDS = 0.1
# Servers close connections that were idle for some seconds; a client that waited as long opens a new one.
CONNECTION_IDLE_SECONDS = 2.0
# What the person who runs the benchmark has set must reach neither the platform nor jig.
FOREIGN_SETTINGS = ("TOGETHER_API_KEY", "TOGETHER_BASE_URL", "TOGETHER_API_BASE_URL", "MACHINESHOP_ADMIN_KEY")


class Platform:
    """`machineshop serve` on a free port, with an empty data directory.

    Args:
        folder: where its data, its log and jig's context file go.
        database_url: an empty database; None for the embedded one.
        python: the interpreter whose environment holds `machineshop` and `jig`.
        runtime: what its replicas are.

    `environment` is what its commands see beside this process's own, as in `child_environment`.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str | None = None,
        python: Path = Path(sys.executable),
        runtime: str = "process",
    ) -> None:
        self._folder = folder
        self._programs = python.parent
        self._contexts = folder / "contexts.json"
        self.environment: dict[str, str | None] = dict.fromkeys(FOREIGN_SETTINGS)
        self.environment["MACHINESHOP_DATABASE_URL"] = database_url
        self.environment["JIG_CONTEXTS"] = str(self._contexts)
        # The platform's own tools stand first: it starts workers with what is installed beside it.
        self.environment["PATH"] = f"{self._programs}{os.pathsep}{os.environ.get('PATH', '')}"
        self.port = free_port()
        self.data = folder / "data"
        data = ["--data-dir", str(self.data), "--runtime", runtime]
        argv = [str(self.program("machineshop")), "serve", "--host", "127.0.0.1", "--port", str(self.port), *data]
        self._child = Child("machineshop", argv, folder, self.environment)

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._child.pid

    @property
    def api_key(self) -> str:
        """The key that it left for jig."""
        contexts = json.loads(self._contexts.read_text(encoding="utf-8"))
        key: str = contexts["contexts"][contexts["current"]]["api_key"]
        return key

    def worker_process_ids(self) -> list[int]:
        """The processes of its replicas."""
        return [process for process in self._child.process_ids() if process != self.pid]

    def wait_until_ready(self) -> None:
        """Return once it listens and has left its key.

        Raises:
            BenchmarkError: it does not start.
        """
        self._child.wait_until(lambda: self._contexts.exists() and accepts_connections(self.port), "listening")

    def deploy(self, project: Path) -> None:
        """`jig deploy` a project.

        Raises:
            BenchmarkError: jig refuses, or does not end.
        """
        self.jig(project, "deploy")

    def jig(self, folder: Path, *arguments: str) -> None:
        """Run a command of jig to its end.

        Raises:
            BenchmarkError: jig refuses, or does not end.
        """
        jig = self._begin(folder, arguments)
        try:
            output, _ = jig.communicate(timeout=DEPLOY_LIMIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            jig.kill()
            jig.communicate()
            raise BenchmarkError(f"jig {arguments[0]} did not end within {DEPLOY_LIMIT_SECONDS:.0f} s.") from error
        if jig.returncode != 0:
            raise BenchmarkError(f"jig {arguments[0]} ended with {jig.returncode}:\n{output}")

    def begin_deploy(self, project: Path, *options: str) -> "subprocess.Popen[str]":
        """`jig deploy` a project; the caller waits for its end."""
        return self._begin(project, ("deploy", *options))

    def destroy(self, name: str) -> None:
        """Remove a deployment, and return once nothing of it runs.

        Raises:
            BenchmarkError: jig refuses, or does not end.
        """
        self.jig(self._folder, "destroy", name, "--yes")

    def _begin(self, folder: Path, arguments: Sequence[str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(self.program("jig")), *arguments],
            cwd=folder,
            env=child_environment(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def copy_deployment(self, name: str, copy: str) -> None:
        """Make a deployment of the same image that runs no replica.

        Raises:
            BenchmarkError: the platform refuses.
        """
        client = self.client()
        kept = {key: client.get(f"/v1/deployments/{name}")[key] for key in ("image", "gpu_type")}
        client.post("/v1/deployments", {**kept, "name": copy, "min_replicas": 0})

    def scale(self, name: str, replicas: int) -> None:
        """Have a deployment run as many replicas, and return once they are ready and no others are left.

        Raises:
            BenchmarkError: they do not come up, or down.
        """
        client = self.client()
        client.patch(f"/v1/deployments/{name}", {"min_replicas": replicas})
        deadline = time.monotonic() + DEPLOY_LIMIT_SECONDS
        while True:
            deployment = client.get(f"/v1/deployments/{name}")
            states = [replica["replica_status"] for replica in deployment["replica_events"].values()]
            if deployment["ready_replicas"] == replicas == len(states) - states.count("Terminated"):
                return
            if time.monotonic() > deadline:
                state = f"{deployment['status']}: {deployment.get('status_message')}"
                raise BenchmarkError(f"{name} is not scaled after {DEPLOY_LIMIT_SECONDS:.0f} s ({state}).")
            time.sleep(READY_POLL_SECONDS)

    def client(self) -> "Client":
        """A connection of its own, with the key that the platform left for jig."""
        return Client(self.port, self.api_key)

    def stop(self) -> None:
        """Ctrl-C: the server ends its replicas, then itself."""
        self._child.stop(signal.SIGINT)

    def program(self, name: str) -> Path:
        """The path of a command of the same environment.

        Raises:
            BenchmarkError: it is not there.
        """
        path = self._programs / name
        if not path.exists():
            raise BenchmarkError(f"{path} does not exist: run `make setup`, and the benchmark with that environment.")
        return path


class Client:
    """JSON over one keep-alive connection of the standard library's HTTP client."""

    def __init__(self, port: int, api_key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_LIMIT_SECONDS)
        self._used_at = time.monotonic()
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}

    def get(self, path: str) -> Any:
        """The answer to a GET.

        Raises:
            BenchmarkError: it is not a 200.
        """
        return self._send("GET", path, None)

    def post(self, path: str, document: object) -> Any:
        """The answer to a POST of JSON. Raises as `get`."""
        return self._send("POST", path, msgspec.json.encode(document))

    def patch(self, path: str, document: object) -> Any:
        """The answer to a PATCH with JSON. Raises as `get`."""
        return self._send("PATCH", path, msgspec.json.encode(document))

    def _send(self, method: str, path: str, body: bytes | None) -> Any:
        now = time.monotonic()
        if now - self._used_at > CONNECTION_IDLE_SECONDS:
            self._connection.close()
        self._used_at = now
        try:
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BenchmarkError(f"{method} {path} got no answer: {type(error).__name__}: {error}") from error
        if response.status != 200:
            raise BenchmarkError(f"{method} {path} answered {response.status}: {text.decode(errors='replace')[:500]}")
        return msgspec.json.decode(text)
