"""From the command to the first healthy answer: `jig deploy --image`, beside `docker run` by hand."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from harness.memory import resident_mib
from harness.platform import Platform
from harness.processes import free_port
from harness.report import Row, percentile
from harness.turns import in_turns
from runtime_measures.docker import docker, wait_until_healthy

IMAGE = "python:3.11-slim"
SERVER = (
    "import http.server as h\n"
    "class A(h.BaseHTTPRequestHandler):\n"
    "  def do_GET(self):\n"
    "    self.send_response(200)\n"
    "    self.send_header('Content-Length', '0')\n"
    "    self.end_headers()\n"
    "h.HTTPServer(('0.0.0.0', 8000), A).serve_forever()\n"
)
OVERHEAD_BAR_SECONDS = 1.0

_numbers = count(1)


@dataclass
class Side:
    """Who starts a container."""

    name: str
    start: Callable[[], float]
    """Starts one, waits for its answer, removes it; returns the seconds until the answer."""


def measure(platform: Platform, folder: Path, rounds: int) -> list[Row]:
    """Both sides by turns."""
    print("\nA local image, from the command to the first healthy answer:")
    sides = [Side("jig deploy --image", lambda: _deployed(platform, folder)), Side("docker run", _run_by_hand)]
    seconds = in_turns(sides, rounds, lambda side: side.start(), lambda taken: f"{taken:6.2f} s")
    ours, peer = (percentile(seconds[side.name], 50) for side in sides)
    server = resident_mib([platform.pid])
    return [
        Row("start", "s", "lower", sides[0].name, ours, sides[1].name, peer),
        Row("start_overhead", "s", "lower", sides[0].name, ours - peer, bar=OVERHEAD_BAR_SECONDS),
        Row("server_memory", "MiB", "lower", "machineshop", server),
    ]


def _deployed(platform: Platform, folder: Path) -> float:
    name = f"started-{next(_numbers)}"
    project = folder / name
    project.mkdir()
    command = ", ".join(f"'''{word}'''" for word in ("python3", "-c", SERVER.replace("'", '"')))
    (project / "jig.toml").write_text(
        f'name = "{name}"\n[deploy]\ngpu_type = "none"\ngpu_count = 0\ncpu = 1\nmemory = 0.5\ncommand = [{command}]\n'
    )
    headers = {"Authorization": f"Bearer {platform.api_key}"}
    began = time.monotonic()
    deploying = platform.begin_deploy(project, "--image", IMAGE)
    answered = wait_until_healthy(platform.port, f"/v1/deployment-request/{name}/health", headers)
    deploying.communicate()
    platform.destroy(name)
    return answered - began


def _run_by_hand() -> float:
    port = free_port()
    limits = ("--init", "--memory", "512m", "--cpus", "1", "--pids-limit", "4096")
    began = time.monotonic()
    container = docker(
        "run", "--detach", *limits, "--publish", f"127.0.0.1:{port}:8000", IMAGE, "python3", "-c", SERVER
    )
    try:
        return wait_until_healthy(port, "/health", {}) - began
    finally:
        docker("rm", "--force", container)
