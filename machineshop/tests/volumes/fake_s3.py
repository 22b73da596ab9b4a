"""An object storage that answers as a test says: wrongly, slowly or without end. On a real socket."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

MODIFIED = "2026-01-01T00:00:00.000Z"


class Request(BaseHTTPRequestHandler):
    """One request, and what it may be answered with."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Server"

    @property
    def is_list(self) -> bool:
        return "list-type" in self.query

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def answer(self, body: bytes | str, status: int = 200, **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.begin(len(data), status, **headers)
        self.wfile.write(data)

    def begin(self, length: int, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), "ETag": '"e"', **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def trickle(self, data: bytes) -> None:
        """Go on with a byte now and then, until the client or the test is tired of it."""
        while not self.server.ends.wait(0.1):
            self.wfile.write(data)

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        with contextlib.suppress(OSError):
            self.server.script(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """The server; `script` answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.script: Callable[[Request], None] = lambda request: request.answer(listing())
        self.seen: list[str] = []
        self.ends = threading.Event()
        self.port: int = self.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def fake_s3() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.ends.set()
        server.shutdown()
        thread.join()


def listing(*entries: str, token: str | None = None) -> str:
    """A page of a list; with a token it is not the last one."""
    more = "" if token is None else f"<NextContinuationToken>{token}</NextContinuationToken>"
    is_cut = "false" if token is None else "true"
    return f"<ListBucketResult><IsTruncated>{is_cut}</IsTruncated>{more}{''.join(entries)}</ListBucketResult>"


def entry(key: str, size: int | str = 1, etag: str = '"e"', modified: str = MODIFIED) -> str:
    """An object in a page."""
    parts = {"Key": key, "Size": size, "ETag": etag, "LastModified": modified}
    return (
        f"<Contents>{''.join(f'<{name}>{value}</{name}>' for name, value in parts.items() if value != '')}</Contents>"
    )
