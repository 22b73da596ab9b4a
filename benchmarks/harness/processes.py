"""Child processes of a benchmark: each in its own process group, its output in a file, stopped within a bound."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.errors import BenchmarkError

START_LIMIT_SECONDS = 60.0
# After this long a child that was asked to stop is killed: a benchmark must leave nothing behind.
STOP_LIMIT_SECONDS = 20.0
POLL_SECONDS = 0.02
SHOWN_LOG_LINES = 15


class Child:
    """One process that this benchmark started.

    Args:
        name: what to call it in messages; its output goes to `<name>.log` in `folder`.
        argv: the command line; it must hold no secret.
        folder: where it runs and logs.
        environment: as in `child_environment`.
        user: whose process it is, where that is somebody else; only root may say so.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        folder: Path,
        environment: Mapping[str, str | None] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                list(argv),
                cwd=folder,
                env=child_environment(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
            )

    @property
    def pid(self) -> int:
        """The process id, also its process group's."""
        return self._process.pid

    def process_ids(self) -> list[int]:
        """Its own and its descendants'; none once it has ended."""
        return [] if self._process.poll() is not None else process_tree(self.pid)

    def wait_until(self, ready: Callable[[], bool], what: str, limit_seconds: float = START_LIMIT_SECONDS) -> None:
        """Return once `ready()`.

        Raises:
            BenchmarkError: the process ended, or `limit_seconds` passed; with the last lines of its log.
        """
        deadline = time.monotonic() + limit_seconds
        while not ready():
            if self._process.poll() is not None:
                raise BenchmarkError(
                    f"{self.name} ended with {self._process.returncode} before {what}.{self._log_tail()}"
                )
            if time.monotonic() > deadline:
                raise BenchmarkError(f"{self.name}: not {what} after {limit_seconds:.0f} s.{self._log_tail()}")
            time.sleep(POLL_SECONDS)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop, and kill its group if it does not; harmless when it has ended already."""
        if self._process.poll() is None:
            self._process.send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_LIMIT_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-SHOWN_LOG_LINES:]
        return "".join(f"\n    {line}" for line in lines)


def process_tree(root: int) -> list[int]:
    """A process and its descendants, as they are now."""
    children = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):  # a process may end while it is looked at
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(entry.name))
    found = [root]
    for process in found:
        found += children[process]
    return found


def interrupt_on_signals() -> None:
    """Have Ctrl-C and SIGTERM raise KeyboardInterrupt, so that either way the children are stopped on the way out."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def child_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """This process's environment with some variables set, or left out where the value is None."""
    merged: dict[str, str | None] = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    """Whether something listens on that port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
