"""A process beside the worker, in a process group of its own: started, spoken to, watched until its end.

The worker's side; what runs in it is `host.py` (see `ModelProcess` in `process.py`). It is this very command anew, so a
script that calls `sprocket.run` gets there as it did here, whatever it does before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ChannelError
from .frames import Frames, Message, encode_message

CHANNEL = "_SPROCKET_CHANNEL"
"""Names the descriptor on which a model's process is spoken to; set for that process alone."""

RECEIVE_BYTES = 256 * 1024
LAST_WORD_SECONDS = 1.0
"""How long a process that cannot be spoken to any more has to end by itself, and to say why."""
SIGNALS_OF_A_STOP = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]


@dataclass(frozen=True)
class End:
    """How a process ended: with an exit code, or by a signal."""

    code: int = 0
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is None:
            return f"exited with code {self.code}"
        hint = " (by the system when memory is short, as a rule)" if self.signal == signal.SIGKILL else ""
        return f"was killed by {_signal_name(self.signal)}{hint}"

    @property
    def exit_code(self) -> int:
        """What a process that ends for this reason exits with, as shells have it."""
        return self.code if self.signal is None else 128 + self.signal


class Child:
    """A running process. Use inside a running event loop, in which both callbacks are called.

    Args:
        command: the program and its arguments.
        environ: its environment.
        on_message: gets what the process says.
        on_end: gets how the process ended, once, after its last message. By then all of its group is gone too.

    Raises:
        OSError: it could not be started.
    """

    def __init__(
        self,
        command: list[str],
        environ: Mapping[str, str],
        on_message: Callable[[Message], None],
        on_end: Callable[[End], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._on_end = on_end
        self._frames = Frames()
        self._unsent = bytearray()
        self._ended = self._loop.create_future()
        self._reaping = threading.Lock()
        self._reaped = False
        self._group, self._lifeline = _spawn_warden()
        self._channel, theirs = socket.socketpair()
        with theirs:
            try:
                self.pid = _spawn(command, environ, theirs, self._group)
            except OSError:
                self._channel.close()
                os.close(self._lifeline)  # This ends the warden.
                os.waitpid(self._group, 0)
                raise
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel, self._receive)
        threading.Thread(target=self._watch, name="sprocket-child", daemon=True).start()

    def send(self, fields: Mapping[str, Any], tail: bytes = b"") -> None:
        """Tell it something; a process that has ended does not hear it.

        Raises:
            ChannelError: it is too large.
        """
        message = encode_message(fields, tail)
        if self._ended.done():
            return
        if not self._unsent:
            message = message[self._send_some(message) :]
            if message:
                self._loop.add_writer(self._channel, self._send_rest)
        self._unsent += message

    def kill(self) -> None:
        """End it, and all of its group, now."""
        with self._reaping:
            if not self._reaped:
                _kill_group(self._group)

    def disown(self) -> None:
        """Kill it, and hear of it no more."""
        self._on_message = lambda _: None
        self._on_end = lambda _: None
        self.kill()

    async def ended(self, within_seconds: float) -> bool:
        """Let it know that nothing more comes, which ends it, and wait for that; give whether it has ended."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        await asyncio.wait([self._ended], timeout=within_seconds)
        return self._ended.done()

    def _send_rest(self) -> None:
        del self._unsent[: self._send_some(self._unsent)]
        if not self._unsent:
            self._loop.remove_writer(self._channel)

    def _send_some(self, data: bytes | bytearray) -> int:
        try:
            return self._channel.send(data)
        except BlockingIOError:
            return 0
        except OSError:  # It has ended, which is seen elsewhere.
            return len(data)

    def _receive(self) -> bool:
        """Take what has arrived; give whether there was anything."""
        try:
            data = self._channel.recv(RECEIVE_BYTES)
            for message in self._frames.feed(data):
                self._on_message(message)
        except BlockingIOError:
            return False
        except (OSError, ChannelError):
            data = b""
        if not data:
            # It is about to end, or cannot be spoken to: then it has to.
            self._loop.remove_reader(self._channel)
            self._loop.call_later(LAST_WORD_SECONDS, self.kill)
        return bool(data)

    def _watch(self) -> None:
        """Wait for the end; in a thread of its own, which the system wakes at once."""
        status = os.waitpid(self.pid, 0)[1]
        with self._reaping:
            # The group has the number of its warden, which is nobody else's until the warden is reaped.
            _kill_group(self._group)
            os.waitpid(self._group, 0)
            self._reaped = True
        end = End(signal=os.WTERMSIG(status)) if os.WIFSIGNALED(status) else End(os.WEXITSTATUS(status))
        with contextlib.suppress(RuntimeError):  # The event loop is closed: nobody wants to know.
            self._loop.call_soon_threadsafe(self._take_end, end)

    def _take_end(self, end: End) -> None:
        while self._receive():
            pass
        self._loop.remove_reader(self._channel)
        self._loop.remove_writer(self._channel)
        self._channel.close()
        os.close(self._lifeline)
        self._ended.set_result(None)
        self._on_end(end)


def take_channel(environ: MutableMapping[str, str]) -> socket.socket | None:
    """Give what the worker is spoken to on; None where this process is no child of it."""
    number = environ.pop(CHANNEL, "")
    if not number:
        return None
    channel = socket.socket(fileno=int(number))
    channel.set_inheritable(False)  # What the model starts is not to hold it.
    return channel


def this_command() -> list[str]:
    """Give the command that has started this very process."""
    return [sys.executable, *sys.orig_argv[1:]]


def _spawn(command: list[str], environ: Mapping[str, str], channel: socket.socket, group: int) -> int:
    channel.set_inheritable(True)
    return os.posix_spawn(
        command[0],
        command,
        {**environ, CHANNEL: str(channel.fileno())},
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
        setpgroup=group,
    )


def _spawn_warden() -> tuple[int, int]:
    """Start a warden with a process group of its own; give its process, and the end of its pipe that it waits for."""
    theirs, ours = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("warden.py"))],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
            setsigmask=SIGNALS_OF_A_STOP,  # A service manager sends them to everybody; it outlives the drain.
        )
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return pid, ours


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
