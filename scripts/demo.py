"""`make demo`: the main job from nothing to a result, on a throw-away platform, with the time that each step took."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
EXAMPLE = ROOT / "examples" / "hello-world"
START_SECONDS = 30
STEP_SECONDS = 300

T = TypeVar("T")


class Demo:
    """One run; `folder` is taken away with everything in it afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.contexts = folder / "contexts.json"
        self.log = folder / "server.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TOGETHER_")},
            "JIG_CONTEXTS": str(self.contexts),
        }
        self.server: subprocess.Popen[bytes] | None = None
        self.began = time.monotonic()

    def run(self) -> None:
        """The steps, each said with its time."""
        self.step("start the platform", self.start)
        self.step("deploy examples/hello-world until it is ready", lambda: self.jig("deploy"))
        request_id = self.step("submit a job", self.submit)
        job = self.step("wait for its result", lambda: self.wait(request_id))
        print(json.dumps(job["outputs"], indent=2))

    def step(self, what: str, work: Callable[[], T]) -> T:
        """Do one step and say how long it took."""
        began = time.monotonic()
        result = work()
        print(f"  {time.monotonic() - began:6.2f} s  {what}", file=sys.stderr, flush=True)
        return result

    def start(self) -> None:
        """Start the server on a free port and wait until it answers."""
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                [
                    BIN / "machineshop",
                    "serve",
                    "--runtime",
                    "process",
                    "--port",
                    "0",
                    "--data-dir",
                    self.folder / "data",
                ],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.server.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"The platform did not start:\n{self.log.read_text()}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """Whether the server is there; it leaves a context for jig when it is."""
        try:
            base_url = json.loads(self.contexts.read_text())["contexts"]["local"]["base_url"]
            with urllib.request.urlopen(f"{base_url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError, KeyError):
            return False

    def submit(self) -> str:
        """Submit a job; returns its id."""
        submitted = self.jig("submit", "--payload", '{"name": "Ada"}', "--json")
        return str(json.loads(submitted)["request_id"])

    def wait(self, request_id: str) -> dict[str, Any]:
        """The job once it has ended."""
        end = time.monotonic() + STEP_SECONDS
        while True:
            job: dict[str, Any] = json.loads(self.jig("job-status", request_id, "--json"))
            if job["status"] == "done":
                return job
            if job["status"] in {"failed", "canceled"} or time.monotonic() > end:
                raise SystemExit(f"The job ended as {job['status']}: {job.get('error')}")
            time.sleep(0.02)

    def jig(self, *arguments: str) -> str:
        """Run jig in the example's folder, as a user would; returns what it printed."""
        finished = subprocess.run(
            [BIN / "jig", *arguments],
            cwd=EXAMPLE,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        if finished.returncode != 0:
            raise SystemExit(f"jig {' '.join(arguments)} failed:\n{finished.stdout}{finished.stderr}")
        return finished.stdout

    def stop(self) -> None:
        """Ctrl-C, and wait until the server and its replicas are gone."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGINT)
            self.server.wait(60)


def main() -> None:
    """Run the demo and clean up after it."""
    with tempfile.TemporaryDirectory(prefix="machineshop-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            demo.run()
        finally:
            demo.step("stop it and clean up", demo.stop)
    print(f"  {time.monotonic() - demo.began:6.2f} s  in all", file=sys.stderr)
    print(
        "\nTo keep a platform running:\n"
        "  .venv/bin/machineshop serve\n"
        "and in another terminal:\n"
        "  cd examples/hello-world && ../../.venv/bin/jig deploy\n"
        '  ../../.venv/bin/jig submit --payload \'{"name": "Ada"}\' --watch',
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
