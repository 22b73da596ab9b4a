"""A Podman engine for tests, with a storage, networks and a socket of its own."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from contract.container_clients import missing, need

START_SECONDS = 60.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 60.0
CONTAINERS = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "modest"
[engine.runtimes]
modest = ["{runtime}"]
[network]
network_config_dir = "{folder}/networks"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
"""
RUNTIME = """#!/usr/bin/python3
# Podman raises limits further than a machine may that is itself confined: no further than this process's own.
import json, os, resource, shutil, sys
arguments = sys.argv[1:]
if "create" in arguments:
    path = os.path.join(arguments[arguments.index("--bundle") + 1], "config.json")
    config = json.load(open(path))
    for limit in config["process"].get("rlimits") or ():
        most = resource.getrlimit(getattr(resource, limit["type"]))[1]
        for bound in ("soft", "hard"):
            limit[bound] = limit[bound] if most == resource.RLIM_INFINITY else min(limit[bound], most)
    json.dump(config, open(path, "w"))
program = shutil.which("runc") or "crun"
os.execvp(program, [program, *arguments])
"""


class PodmanEngine:
    """`podman system service` on a socket; where none can be had, the test is skipped, but not in CI."""

    def __init__(self) -> None:
        need("podman")
        if os.geteuid() != 0:
            missing("only root can give containers limits with podman here")
        self.folder = Path(tempfile.mkdtemp(prefix="podman-"))
        self.endpoint = f"unix://{self.folder}/podman.sock"
        runtime = self.folder / "modest"
        runtime.write_text(RUNTIME)
        runtime.chmod(0o755)
        (self.folder / "containers.conf").write_text(CONTAINERS.format(folder=self.folder, runtime=runtime))
        (self.folder / "storage.conf").write_text(STORAGE.format(folder=self.folder))
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
        }
        self._service: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the service, and wait until it answers."""
        with (self.folder / "service.log").open("ab") as log:
            self._service = subprocess.Popen(
                ["podman", "system", "service", "--time=0", self.endpoint],
                env=self._environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "service.log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9 of the service; containers run on."""
        assert self._service is not None
        self._service.send_signal(signal.SIGKILL)
        self._service.wait(STOP_SECONDS)
        (self.folder / "podman.sock").unlink(missing_ok=True)

    def podman(self, *arguments: str) -> str:
        """Run a command of podman on the same storage."""
        finished = subprocess.run(
            ["podman", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(START_SECONDS)
            try:
                connection.connect(self.endpoint.removeprefix("unix://"))
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: podman\r\n\r\n")
                return b" 200 " in connection.recv(64)
            except OSError:
                return False

    def remove(self) -> None:
        """End it, and remove all that it has."""
        self.podman("rm", "--all", "--force", "--time", "0")
        self.podman("image", "rm", "--all", "--force")
        self.kill()
        subprocess.run(["umount", "--lazy", str(self.folder / "storage/overlay")], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
