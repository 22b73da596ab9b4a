"""The server's side of `shim.py`: starting one, finding it again, signalling it, seeing it end.

A run is alive exactly as long as its supervisor holds the lock on the file `lock` in the replica's folder. The lock is
taken here and inherited, so there is no moment at which a run exists and cannot be found; and unlike a process id it is
never given to somebody else.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, TypeVar

import msgspec

LOOK_SECONDS = 0.02
"""How often to look where the system cannot tell us of the end of a process."""
SIGNALLED_AGAIN_SECONDS = 5.0
"""How long a supervisor may take to end after it was told to kill its run; then it is killed itself."""
REPLICA_ID = "MACHINESHOP_REPLICA_ID"

logger = logging.getLogger(__name__)
_Note = TypeVar("_Note", "RunNote", "ExitNote")


class RunNote(msgspec.Struct, frozen=True):
    """What a supervisor writes down at its start."""

    supervisor_pid: int
    pid: int
    started_at: float


class ExitNote(msgspec.Struct, frozen=True):
    """What a supervisor writes down at its end."""

    at: float
    code: int | None
    signal: int | None
    reason: str | None
    last_line: str


_RUN_NOTE = msgspec.json.Decoder(RunNote)
_EXIT_NOTE = msgspec.json.Decoder(ExitNote)


class Supervisor:
    """One run of a replica, alive or not.

    Args:
        folder: The replica's folder.
        run: The run's number.
        pid: The supervisor's process, where that is known already.
    """

    def __init__(self, folder: Path, run: int, pid: int | None = None) -> None:
        self.folder, self.run = folder, run
        self._pid = pid
        self._kill_sent_at: float | None = None

    @property
    def pid(self) -> int | None:
        """The supervisor's process, once it is known."""
        if self._pid is None and (note := self._run_note()) is not None:
            self._pid = note.supervisor_pid
        return self._pid

    @property
    def began(self) -> bool:
        """Whether there ever was a supervisor."""
        return self._run_note() is not None

    @property
    def alive(self) -> bool:
        """Whether the run goes on."""
        return _locked(self.folder / "lock")

    def exit_note(self) -> ExitNote | None:
        """How the run ended; None when it has not, or when nobody saw it."""
        return _read(self.folder / f"exit-{self.run}.json", _EXIT_NOTE)

    async def gone(self) -> None:
        """Wait until the run is over."""
        while self.alive:
            if self.pid is None or not await self._process_ended(self.pid):
                await asyncio.sleep(LOOK_SECONDS)
        self._reap()

    def terminate(self) -> None:
        """Ask the run to end; each call reaches the command."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the run now; called again after some seconds, end its supervisor too, which ends the run with it."""
        now = asyncio.get_running_loop().time()
        if self._kill_sent_at is None:
            self._kill_sent_at = now
            self._signal(signal.SIGUSR1)
        elif now - self._kill_sent_at > SIGNALLED_AGAIN_SECONDS:
            self._signal(signal.SIGKILL)

    def kill_leftovers(self, replica_id: str) -> None:
        """End whatever a supervisor that was killed itself could not: all of its session, and all with its mark."""
        note = self._run_note()
        session = note.supervisor_pid if note else -1
        for pid in _left_behind(session, f"{REPLICA_ID}={replica_id}".encode()):
            logger.warning("process left behind by a killed supervisor: replica=%s pid=%d", replica_id, pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    async def _process_ended(self, pid: int) -> bool:
        """Wait for the end of the supervisor, our child or not; False where this system cannot tell."""
        try:
            descriptor = os.pidfd_open(pid)
        except (OSError, AttributeError):
            return False
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        try:
            if self.alive:  # else the id may have passed to another process before it was opened
                loop.add_reader(descriptor, ended.set)
                await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return True

    def _signal(self, number: signal.Signals) -> None:
        # While the lock is held its holder lives, so its process id cannot have passed to another.
        if self.alive and self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def _reap(self) -> None:
        if self._pid is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, os.WNOHANG)

    def _run_note(self) -> RunNote | None:
        return _read(self.folder / f"run-{self.run}.json", _RUN_NOTE)


def spawn(folder: Path, run: int, order: dict[str, Any]) -> Supervisor:
    """Start a supervisor and give it its order; blocks for some milliseconds.

    Args:
        folder: The replica's folder, which gets the run's files.
        run: The run's number.
        order: `command`, `cwd`, `env`, `grace_seconds`, `memory_bytes` (0: no limit), `log_bytes` (of one file).

    Raises:
        OSError: The process could not be made, or it ended before it had its order.
    """
    with contextlib.ExitStack() as opened:
        lock = _open(opened, folder / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        errors = _open(opened, folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        read, write = os.pipe()
        opened.callback(os.close, read)
        pipe = opened.enter_context(os.fdopen(write, "wb"))
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("shim.py"))],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, read, 0),
                (os.POSIX_SPAWN_DUP2, errors, 1),
                (os.POSIX_SPAWN_DUP2, errors, 2),
                (os.POSIX_SPAWN_DUP2, lock, 3),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD],
        )
        pipe.write(msgspec.json.encode({**order, "folder": str(folder), "run": run}) + b"\n")
    return Supervisor(folder, run, pid)


def _open(opened: contextlib.ExitStack, path: Path, flags: int) -> int:
    """A descriptor above those that the child gets, so that handing them over cannot overwrite it."""
    low = os.open(path, flags, 0o600)
    try:
        high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, 10)
    finally:
        os.close(low)
    opened.callback(os.close, high)
    return high


def _locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _left_behind(session: int, mark: bytes) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            of_session = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[3]) == session
            if of_session or mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def _read(path: Path, decoder: "msgspec.json.Decoder[_Note]") -> _Note | None:
    try:
        return decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
