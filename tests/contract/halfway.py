"""A way to a server on which answers come so far and no further, until they may go on."""

import contextlib
import socket
import threading
from collections.abc import Callable

PIECE_BYTES = 64 * 1024
CLOSE_SECONDS = 30.0
BUFFER_BYTES = 1024 * 1024
"""What the server may send beyond that: so much and what its own buffer takes."""


class Halfway:
    """Listens on a port of its own, and passes everything on.

    Args:
        port: The server's.
        stop_bytes: So much of its answers is let through, in all, before they stop.
    """

    def __init__(self, port: int, stop_bytes: int) -> None:
        self.passed_bytes = 0
        """Of answers, on all connections."""
        self.stopped = threading.Event()
        self._target, self._stop_bytes = ("127.0.0.1", port), stop_bytes
        self._flows, self._counting = threading.Event(), threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._spawn(self._accept)

    def go_on(self) -> None:
        """Let through whatever comes from now on."""
        self._flows.set()

    def close(self) -> None:
        """End, and with it whoever is connected still."""
        self.go_on()
        for each in (self._listener, *self._sockets):
            _end(each)
        for thread in self._threads:
            thread.join(CLOSE_SECONDS)
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket()
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
                self._sockets += [client, server]
                try:
                    server.connect(self._target)
                except OSError:  # it is not there just now
                    _end(client)
                    continue
                self._spawn(self._pump, client, server, False)
                self._spawn(self._pump, server, client, True)

    def _pump(self, source: socket.socket, target: socket.socket, are_answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                if are_answers:
                    self._wait()
                    with self._counting:
                        self.passed_bytes += len(data)
                target.sendall(data)
        _end(source)
        _end(target)

    def _wait(self) -> None:
        if self.passed_bytes >= self._stop_bytes:
            self.stopped.set()
            self._flows.wait()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


def _end(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
