"""The worker in most tests' bundles: answers health checks and does by HTTP what a test asks for.

Nothing but small parts of the standard library, as it is started some hundred times.
"""

import errno
import json
import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

healthy = threading.Event()
if os.environ.get("HEALTHY", "1") == "1":
    healthy.set()
STARTED = time.monotonic()

print("worker starting", flush=True)
if "EXIT_CODE" in os.environ:
    print("worker gives up", flush=True)
    sys.exit(int(os.environ["EXIT_CODE"]))
if "IGNORE_TERMINATE" in os.environ:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "HAS_JOB_IN_HAND" in os.environ:
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if asked.is_set() else asked.set())


def chatter() -> None:
    while True:
        os.write(1, b"a line that says nothing at all, again and again and again\n" * 200)


def attempt(work: Callable[[], str]) -> str:
    try:
        return work()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:  # noqa: C901 - a case for each thing that a test may ask for
        url = urlsplit(self.rfile.readline().split()[1].decode())
        while self.rfile.readline().strip():
            pass
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        match url.path:
            case "/health":
                started = time.monotonic() - STARTED >= float(os.environ.get("START_SECONDS", "0"))
                self.answer(200 if healthy.is_set() and started else 503)
            case "/env":
                self.answer(200, json.dumps({"env": dict(os.environ), "cwd": str(Path.cwd())}))
            case "/exit":
                os._exit(int(query["code"]))
            case "/print":
                print(query["text"], end=query.get("end", "\n"), flush=True)
                self.answer(200)
            case "/chatter":
                threading.Thread(target=chatter, daemon=True).start()
                self.answer(200)
            case "/healthy":
                healthy.set() if query["value"] == "1" else healthy.clear()
                self.answer(200)
            case "/spawn":
                import subprocess  # noqa: PLC0415 - few tests need it, and all would pay for it

                child = subprocess.Popen(["sleep", "600"], start_new_session=query["session"] == "new")
                self.answer(200, str(child.pid))
            case "/read":
                self.answer(200, attempt(lambda: Path(query["path"]).read_text()))
            case "/write":
                self.answer(200, attempt(lambda: str(Path(query["path"]).write_text("mine"))))
            case "/hold":
                held.append(bytearray(os.urandom(1024)) * (1024 * int(query["mib"])))
                self.answer(200)

    def answer(self, status: int, text: str = "") -> None:
        self.wfile.write(f"HTTP/1.0 {status} as asked\r\n\r\n{text}".encode())


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


held: list[bytearray] = []
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
