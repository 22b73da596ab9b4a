"""A real platform in a process of its own, for tests that use it as people do: over its port, with its commands."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from migrated import migrated_sqlite
from ports import reserve_port

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
START_SECONDS = 60.0
STOP_SECONDS = 60.0

T = TypeVar("T")


class PlatformProcess:
    """`machineshop serve` on a port of its own, with a data directory and a jig context of its own.

    Args:
        folder: where everything of it lies.
        options: more of the command's options.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.data_dir = folder / "data"
        self.log = folder / "server.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TOGETHER_", "MACHINESHOP_"))},
            "JIG_CONTEXTS": str(folder / "contexts.json"),
            "NO_COLOR": "1",
        }
        self.port = reserve_port()
        self._process: subprocess.Popen[bytes] | None = None

    def make_database(self) -> None:
        """Have the first start find a database that needs no migration, as later ones do."""
        self.data_dir.mkdir(mode=0o700)
        migrated_sqlite(self.data_dir)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        wait_for(self._answers, "the platform answers", START_SECONDS)

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        options = ["--data-dir", str(self.data_dir), "--port", str(self.port), "--verbose", *self.options]
        if "--runtime" not in options:  # most tests want no container engine, whether there is one or not
            options += ["--runtime", "process"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(BIN / "machineshop"), "serve", *options],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def base_url(self) -> str:
        return str(self._context["base_url"])

    @property
    def api_key(self) -> str:
        return str(self._context["api_key"])

    @property
    def _context(self) -> dict[str, str]:
        contexts = json.loads((self.folder / "contexts.json").read_text())
        context: dict[str, str] = contexts["contexts"]["local"]
        return context

    def client(self, *, key: str | None = None) -> httpx.Client:
        """An HTTP client with the admin key, or another."""
        headers = {"Authorization": f"Bearer {key or self.api_key}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=60, verify=self.verify)

    @property
    def ca_file(self) -> Path:
        """The authority of its own, with `--tls auto`."""
        return self.data_dir / "tls" / "ca.pem"

    @property
    def verify(self) -> "ssl.SSLContext | bool":
        """What httpx is to trust. Of plain HTTP nothing: it would read the machine's authorities for each client,
        which takes as long as many a call."""
        return ssl.create_default_context(cafile=self.ca_file) if self.base_url.startswith("https") else False

    def create_key(self, project: str, scope: str = "developer") -> str:
        """A key of another project."""
        created = self.machineshop(
            "keys", "create", "--name", "test", "--project", project, "--scope", scope, "--data-dir", self.data_dir
        )
        return created.stdout.strip()

    def machineshop(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """Run the platform's command."""
        return self._run(BIN / "machineshop", arguments, self.folder)

    def jig(self, *arguments: object, cwd: Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run jig in a project's folder."""
        finished = self._run(BIN / "jig", arguments, cwd)
        assert finished.returncode == 0 or not check, finished.stdout + finished.stderr
        return finished

    def _run(self, command: Path, arguments: tuple[object, ...], cwd: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [command, *map(str, arguments)],
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """kill -9 of the server alone: its replicas run on."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(STOP_SECONDS)

    def close(self) -> None:
        """Ctrl-C, which ends the replicas too."""
        if self._process is None:
            return
        if self._process.poll() is not None:
            self.start()  # it was killed: only a server can end what runs on
        self.signal(signal.SIGINT)

    def _answers(self) -> bool:
        assert self._process is not None
        status = self._process.poll()
        assert status is None, f"the server ended with {status}:\n{self.log.read_text()}"
        try:
            healthy = httpx.get(f"{self.base_url}/health", timeout=5, verify=self.verify).status_code == 200
        except (OSError, KeyError, httpx.HTTPError):
            return False
        address = json.loads((self.data_dir / "server.json").read_text())
        return healthy and bool(address["pid"] == self.pid)

    # What tests do again and again.

    def deploy(self, folder: Path) -> None:
        """`jig deploy` of a project folder, until it is ready."""
        self.jig("deploy", cwd=folder)

    def submit(self, model: str, payload: dict[str, Any], **fields: Any) -> str:
        """Submit a job; returns its id."""
        with self.client() as client:
            answer = client.post("/v1/queue/submit", json={"model": model, "payload": payload, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["request_id"])

    def job(self, model: str, request_id: str) -> dict[str, Any]:
        """A job as it is now."""
        with self.client() as client:
            answer = client.get("/v1/queue/status", params={"model": model, "request_id": request_id})
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def finished(self, model: str, request_id: str, seconds: float = 60.0) -> dict[str, Any]:
        """A job once it has ended."""
        return wait_for(
            lambda: job if (job := self.job(model, request_id))["status"] in {"done", "failed", "canceled"} else None,
            f"job {request_id} ends",
            seconds,
        )

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment as it is now."""
        with self.client() as client:
            answer = client.get(f"/v1/deployments/{name}")
        assert answer.status_code == 200, answer.text
        deployment: dict[str, Any] = answer.json()
        return deployment


def wait_for(condition: Callable[[], T | None], what: str, seconds: float = 60.0, every: float = 0.05) -> T:
    """Poll until `condition()` is truthy, `every` so many seconds, and return it."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain until {what}"
        time.sleep(every)
    return value


def write_worker(folder: Path, name: str, source: str, *, tables: str = "") -> Path:
    """A project folder with one worker, `worker:Worker`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "worker.py").write_text(source)
    (folder / "jig.toml").write_text(f'name = "{name}"\nworker = "worker:Worker"\n{tables}')
    return folder
