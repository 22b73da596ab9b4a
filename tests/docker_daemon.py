"""A Docker Engine of a test's own, which it may kill: its own storage, socket and addresses.

It shares the bridge `docker0` with the machine's engine, and puts nothing on it. So it must be told the address that
the bridge has: else it would give it another, or, with a bridge of its own, remove this one.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from contract.container_clients import missing, need

START_SECONDS = 60.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 120.0
POOL = "10.214.0.0/16"


class DockerDaemon:
    """`dockerd`, without rules of its own in the machine's firewall; where none can be had, the test is skipped, but
    not in CI."""

    def __init__(self) -> None:
        need("dockerd")
        need("ip")
        if os.geteuid() != 0:
            missing("only root can start a Docker Engine")
        self.folder = Path(tempfile.mkdtemp(prefix="dockerd-"))
        self.endpoint = f"unix://{self.folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self.folder}/data",
                    f"--exec-root={self.folder}/exec",
                    f"--pidfile={self.folder}/docker.pid",
                    f"--host={self.endpoint}",
                    *_bridge_as_it_is(),
                    f"--default-address-pool=base={POOL},size=24",
                    "--iptables=false",
                    "--ip6tables=false",
                    "--ip-masq=false",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while self._run("version").returncode != 0:
            assert self._process.poll() is None, (self.folder / "dockerd.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "dockerd.log").read_text()
            time.sleep(0.05)

    def stop(self, number: signal.Signals) -> None:
        """Signal it, and wait for its end."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(STOP_SECONDS)
        if number == signal.SIGKILL:
            # Where nobody reaps, what the killed daemon left seems to be alive.
            (self.folder / "exec/containerd/containerd.pid").unlink()
            (self.folder / "docker.pid").unlink()

    def freeze(self) -> None:
        """Have it answer nobody, as one that hangs."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def docker(self, *arguments: str) -> str:
        """Run a command of docker on it, which must succeed; returns what it printed."""
        finished = self._run(*arguments)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout.strip()

    def remove(self) -> None:
        """End it, and remove all that it has."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        if self._process.poll() is not None:
            self.start()  # only a daemon can end what a killed one left
        if containers := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", *containers)
        self.stop(signal.SIGTERM)
        subprocess.run(["umount", "--lazy", str(self.folder / "data")], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["docker", "--host", self.endpoint, *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )


def _bridge_as_it_is() -> list[str]:
    """The option that leaves the machine's bridge alone."""
    shown = subprocess.run(["ip", "-4", "-json", "addr", "show", "docker0"], capture_output=True, check=False)
    if shown.returncode != 0:
        return []
    addresses = [f"{each['local']}/{each['prefixlen']}" for each in json.loads(shown.stdout)[0]["addr_info"]]
    return [f"--bip={address}" for address in addresses[:1]]
