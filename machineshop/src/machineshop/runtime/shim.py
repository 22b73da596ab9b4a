# ruff: noqa: PTH105, PTH108, PTH123, PTH208
# pathlib would take longer to import than all else that this program does to start.
"""The supervisor of one run of one replica: a small program of its own, so that the server may come and go.

Place in the flow: `supervisor.py` starts it as `python -I -S shim.py`, in a session of its own, with its instructions
as JSON on stdin (a pipe, so nothing secret is on a command line or on disk) and a locked file as descriptor 3, by which
any later server can tell that it is alive. It starts the command, stamps and rotates what that prints, and leaves:

    run-<n>.json    pids of the supervisor and of the command
    exit-<n>.json   how the run ended, written when nothing of it is left
    log.<k>         `<seconds since the epoch> <line>`; the two newest are kept

SIGTERM: passed on to the command's process group, each time it comes; a grace period after the first the group is
killed, server or no server.
SIGUSR1: the group is killed at once. The standard library is all it may import, and little of that: it must start fast.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, BinaryIO

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LOCK_DESCRIPTOR = 3
CHUNK_BYTES = 64 * 1024
LONGEST_LINE_BYTES = 16 * 1024
"""A longer line is cut into pieces, so that a replica that never ends one still shows in its log."""
LOG_FILES = 2
GRACE_SLACK_SECONDS = 2.0
"""The server keeps the grace period too and is a little earlier, so that its record says what happened."""
LAST_WORDS_SECONDS = 2.0
"""How long to read on after the end from a pipe that something still holds open."""
MEMORY_CHECK_SECONDS = 1.0
COULD_NOT_START = 127
LONGEST_QUOTE = 100
"""Characters of a program's name in a message, which is cut elsewhere and should still say what is wrong."""


class Log:
    """Stamped lines in files of bounded size; what cannot be written is dropped, never waited for."""

    def __init__(self, folder: str, file_bytes: int) -> None:
        self._folder, self._file_bytes = folder, file_bytes
        numbers = [int(name[4:]) for name in os.listdir(folder) if name.startswith("log.") and name[4:].isdigit()]
        self._number = max(numbers, default=0)
        self._file: BinaryIO | None = None
        self._open_line = b""
        self.last_line = b""
        self._open()

    def take(self, chunk: bytes) -> None:
        """Write the lines that this completes."""
        *lines, self._open_line = (self._open_line + chunk).split(b"\n")
        while len(self._open_line) > LONGEST_LINE_BYTES:
            lines.append(self._open_line[:LONGEST_LINE_BYTES])
            self._open_line = self._open_line[LONGEST_LINE_BYTES:]
        if lines:
            self._write(lines)

    def close(self) -> None:
        """Write what was printed last without a line's end."""
        if self._open_line:
            self._write([self._open_line])
        self._open_line = b""
        self._close_file()

    def _write(self, lines: list[bytes]) -> None:
        stamp = b"%.6f " % time.time()
        self.last_line = next((line for line in reversed(lines) if line.strip()), self.last_line)
        self.append(b"".join(stamp + line + b"\n" for line in lines))

    def append(self, text: bytes) -> None:
        """Write whole lines that have their stamps."""
        try:
            if self._file is None or self._file.tell() + len(text) > self._file_bytes:
                self._rotate()
            if self._file is not None:
                self._file.write(text)
        except OSError:
            self._close_file()

    def _rotate(self) -> None:
        if self._file is not None and self._file.tell():
            self._number += 1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._folder}/log.{self._number - LOG_FILES}")
        self._close_file()
        self._open()

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._file = None

    def _open(self) -> None:
        try:
            self._file = open(f"{self._folder}/log.{self._number}", "ab", buffering=0)  # noqa: SIM115 - it stays open
        except OSError:
            self._file = None


class Run:
    """One run of the command, from its start until nothing of it is left."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.folder, self.number = str(order["folder"]), int(order["run"])
        self.log = Log(self.folder, int(order["log_bytes"]))
        self.output, self._output_end = os.pipe()
        self.signals = _signal_pipe()
        self.pid = 0
        self.status: int | None = None
        self.reason: str | None = None
        self.kill_at: float | None = None
        self.memory_check_at = time.monotonic() + MEMORY_CHECK_SECONDS if order["memory_bytes"] else None

    def start(self) -> None:
        """Start the command; when that is impossible the run is over, and its exit says why."""
        self._note_run()
        failed_read, failed_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become_command(self.order, self._output_end, failed_write)
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)
        os.close(self._output_end)
        os.close(failed_write)
        self._note_run()
        failure = os.read(failed_read, 1024)
        os.close(failed_read)
        if failure:
            self.log.take(failure + b"\n")

    def attend(self) -> None:
        """Pass on output and signals until the command has ended."""
        while self.status is None:
            readable, _, _ = select.select(self._sources(), [], [], self._patience())
            if self.signals in readable:
                self._take_signals()
            if self.output in readable:
                self._take_output()
            now = time.monotonic()
            if self.kill_at is not None and now >= self.kill_at:
                self.reason, self.kill_at = self.reason or "Overstayed", None
                self._signal_group(signal.SIGKILL)
            if self.memory_check_at is not None and now >= self.memory_check_at:
                self._check_memory()

    def finish(self) -> None:
        """End all that the command left behind, read its last words, and write down how it ended."""
        self._signal_group(signal.SIGKILL)
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while _kill_children() and time.monotonic() < deadline:
            time.sleep(0.005)
        while self.output >= 0 and time.monotonic() < deadline:
            if not select.select([self.output], [], [], 0.0 if _childless() else 0.01)[0]:
                break
            self._take_output()
        self.log.close()
        self._note_exit()

    def _sources(self) -> list[int]:
        return [self.signals] if self.output < 0 else [self.signals, self.output]

    def _patience(self) -> float | None:
        times = [at for at in (self.kill_at, self.memory_check_at) if at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _take_output(self) -> None:
        chunk = os.read(self.output, CHUNK_BYTES)
        if chunk:
            self.log.take(chunk)
        else:
            os.close(self.output)
            self.output = -1

    def _take_signals(self) -> None:
        for number in os.read(self.signals, 256):
            if number == signal.SIGTERM:
                self._signal_group(signal.SIGTERM)
                if self.kill_at is None:
                    self.kill_at = time.monotonic() + float(self.order["grace_seconds"]) + GRACE_SLACK_SECONDS
            elif number == signal.SIGUSR1:
                self._signal_group(signal.SIGKILL)
            elif number == signal.SIGCHLD:
                self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = status

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _check_memory(self) -> None:
        began = time.monotonic()
        if memory_over(os.getpid(), int(self.order["memory_bytes"])):
            self.reason = "OOMKilled"
            self._signal_group(signal.SIGKILL)
        took = time.monotonic() - began
        self.memory_check_at = began + max(MEMORY_CHECK_SECONDS, 100 * took)

    def _note_run(self) -> None:
        run = {"supervisor_pid": os.getpid(), "pid": self.pid, "started_at": time.time()}
        _write_json(f"{self.folder}/run-{self.number}.json", run)

    def _note_exit(self) -> None:
        status = self.status or 0
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        note = {
            "at": time.time(),
            "code": os.WEXITSTATUS(status) if ended_by is None else None,
            "signal": ended_by,
            "reason": self.reason,
            "last_line": self.log.last_line.decode(errors="replace").strip(),
        }
        _write_json(f"{self.folder}/exit-{self.number}.json", note)


def memory_over(supervisor: int, limit_bytes: int) -> bool:
    """Whether a supervisor's descendants hold more memory than that, files and shared parts counted fairly.

    A limit on address space would stop any CUDA program, which reserves far more than it uses; so what is really held
    is looked at now and then instead.
    """
    pids = _descendants(supervisor)
    if sum(_held_bytes(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:")) for pid in pids) <= limit_bytes:
        return False
    # Pages shared between processes were counted once for each: look closer, which costs more.
    return sum(_held_bytes(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) for pid in pids) > limit_bytes


def _held_bytes(path: str, names: tuple[bytes, ...]) -> int:
    try:
        with open(path, "rb") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(names))
    except OSError:
        return 0


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            children.setdefault(_parent(name), []).append(int(name))
    found, queue = [], [ancestor]
    while queue:
        queue.extend(children.get(queue[0], []))
        found.extend(children.get(queue.pop(0), []))
    return found


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the program's name in parentheses, which may hold spaces and parentheses.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _kill_children() -> bool:
    """Kill what was left behind and has become a child of this process; whether there was anything."""
    while not _childless():
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return False
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return True
    return False


def _childless() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def _signal_pipe() -> int:
    """A descriptor from which the numbers of arriving signals can be read."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return read


def _become_command(order: dict[str, Any], output: int, failed: int) -> None:
    """The child's side of the fork: never returns."""
    try:
        command = [str(word) for word in order["command"]]
        supervisor = os.getppid()
        os.setpgid(0, 0)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(COULD_NOT_START)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(order["cwd"])
        os.execvpe(command[0], command, order["env"])  # noqa: S606 - the deployment's own command
    except Exception as error:  # noqa: BLE001 - whatever it is, this is the only one who can tell
        os.write(failed, _why_not_started(order, error).encode(errors="backslashreplace"))
    finally:
        os._exit(COULD_NOT_START)


def _why_not_started(order: dict[str, Any], error: Exception) -> str:
    command = order["command"]
    if not command:
        return "cannot start anything: the command is empty"
    if isinstance(error, OSError):
        why = "no such program" if error.errno == errno.ENOENT else os.strerror(error.errno or 0)
    else:
        # Python itself refuses what the system cannot be told: a NUL, a variable's name with "=" in it.
        why = f"the command or its environment cannot be passed on ({error})"
    return f"cannot start {repr(command[0])[:LONGEST_QUOTE]}: {why}"


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _write_json(path: str, content: dict[str, Any]) -> None:
    # A full disk must not end the supervision; the server then sees a run whose end nobody saw.
    with contextlib.suppress(OSError):
        with open(f"{path}.new", "w") as file:
            json.dump(content, file)
        os.replace(f"{path}.new", path)


def _read_order() -> dict[str, Any] | None:
    with os.fdopen(0, "rb", closefd=False) as file:
        text = file.read()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # An incomplete order comes from a server that died while it gave it.
    return json.loads(text) if text.endswith(b"\n") else None


def main() -> int:
    """Supervise one run."""
    os.set_inheritable(LOCK_DESCRIPTOR, False)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    order = _read_order()
    if order is None:
        return 1
    run = Run(order)
    run.start()
    run.attend()
    run.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
