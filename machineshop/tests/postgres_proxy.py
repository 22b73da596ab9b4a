"""A way to a Postgres that tests can halt, as if the machine behind it stood still, or cut at a chosen word."""

import contextlib
import socket
import threading
from urllib.parse import urlsplit, urlunsplit


class PostgresProxy:
    """Listens on a port of its own and passes everything on, until it is told otherwise."""

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}"))
        self._flows = threading.Event()
        self._flows.set()
        self._fatal_word: bytes | None = None
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def halt(self) -> None:
        """Take what comes, and pass nothing on."""
        self._flows.clear()

    def go_on(self) -> None:
        """Pass on again, also what came meanwhile."""
        self._flows.set()

    def cut_after(self, word: bytes) -> None:
        """The next time that a client sends this, the database gets it, and the client is cut off from the answer."""
        self._fatal_word = word

    def close(self) -> None:
        """Cut everything and end."""
        self._flows.set()
        self._end(self._listener)
        for each in list(self._sockets):
            self._end(each)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                doomed = threading.Event()
                self._spawn(self._pump, client, server, doomed, True)
                self._spawn(self._pump, server, client, doomed, False)

    def _pump(self, source: socket.socket, target: socket.socket, doomed: threading.Event, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                if up and self._fatal_word is not None and self._fatal_word in data:
                    self._fatal_word = None
                    doomed.set()
                elif doomed.is_set() and not up:
                    break
                target.sendall(data)
        self._end(source)
        self._end(target)

    def _spawn(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    @staticmethod
    def _end(opened: socket.socket) -> None:
        with contextlib.suppress(OSError):
            opened.shutdown(socket.SHUT_RDWR)
        opened.close()
