"""The HTTP protocol in front of an application of the tests' own, and callers on real connections."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn
import uvloop

from machineshop.bodies import read_body
from machineshop.http import json_response
from machineshop.protocol import BoundedHttpProtocol

END = b"\r\n\r\n"
BODY_LIMIT_BYTES = 1024
START = b"GET / HTTP/1.1\r\nHost: x\r\n"


class Application:
    """Answers with how much it read; what happens on the way there is up to the path."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()  # for the server's loop
        self.waiting = threading.Event()
        self.told = threading.Event()  # that a caller is gone

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/json":
            body = await read_body(scope, receive, BODY_LIMIT_BYTES, "")
            await json_response({"size": len(body)})(scope, receive, send)
            return
        if scope["path"] == "/nothing":
            return
        if scope["path"] == "/broken":
            raise RuntimeError("a defect")
        size, more = 0, scope["path"] != "/deaf"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        if scope["path"] == "/wait":
            self.waiting.set()
            await self.go_on.wait()
        if scope["path"] in {"/poll", "/flood"}:
            await self._until_gone(receive, send, is_flooded=scope["path"] == "/flood")
            return
        answer = json.dumps({"path": scope["path"], "size": size}).encode()
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})
        if scope["path"] == "/busy":
            self.waiting.set()
            await self.go_on.wait()

    async def _until_gone(self, receive: Any, send: Any, *, is_flooded: bool) -> None:
        """Wait for the caller's end, perhaps with an answer that has none."""
        flood = asyncio.ensure_future(_flood(send)) if is_flooded else None
        self.waiting.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        self.told.set()
        if flood is not None:
            flood.cancel()


async def _flood(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
        await asyncio.sleep(0)  # to a caller that is gone it is sent at once


class Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, Any]:
        """The next answer's status and JSON."""
        async with asyncio.timeout(60):
            head = (await self.reader.readuntil(END)).decode()
            headers = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head.split()[1]), json.loads(body or b"null")

    async def refusal(self) -> tuple[int, str]:
        """The status and the error's code, of an answer after which the connection ends."""
        status, body = await self.answer()
        assert body["error"].keys() == {"message", "type", "param", "code"}
        assert body["error"]["type"] == "invalid_request_error"
        assert await self.rest() == b""
        return status, body["error"]["code"]

    async def defect(self) -> int:
        """The status of an answer that says that something went wrong inside, after which the connection ends."""
        status, body = await self.answer()
        assert body["error"]["code"] == body["code"] == "machineshop_error"
        assert await self.rest() == b""
        return status

    async def rest(self) -> bytes:
        """What else comes until the connection ends."""
        async with asyncio.timeout(60):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


class Server:
    """The protocol under test in front of `Application`, on the event loop that the platform has."""

    def __init__(self, http: type[BoundedHttpProtocol], timeout_keep_alive: int) -> None:
        self.application = Application()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.loop = uvloop.new_event_loop()
        self.server = uvicorn.Server(
            uvicorn.Config(
                self.application,
                http=http,
                ws="none",
                lifespan="off",
                log_config=None,
                timeout_keep_alive=timeout_keep_alive,
                timeout_graceful_shutdown=1,
            )
        )
        self.callers: list[Caller] = []

    def serve(self) -> None:
        """Serve until `stop`."""
        self.loop.run_until_complete(self.server.serve(sockets=[self.socket]))
        self.loop.close()

    async def call(self, data: bytes = b"") -> Caller:
        """A connection that has sent `data`."""
        caller = Caller(*await asyncio.open_connection(*self.socket.getsockname()))
        self.callers.append(caller)
        caller.send(data)
        return caller

    async def tasks(self) -> int:
        """How many tasks the server's loop has."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_count_tasks(), self.loop))

    def go_on(self) -> None:
        """Let every `/wait` answer that waits now."""
        self.loop.call_soon_threadsafe(self.application.go_on.set)
        self.loop.call_soon_threadsafe(self.application.go_on.clear)

    def hang_up(self) -> None:
        """End what a test has left."""
        self.go_on()
        self.application.waiting.clear()
        for caller in self.callers:
            caller.writer.close()
        self.callers.clear()


async def _count_tasks() -> int:
    return len(asyncio.all_tasks())


@contextlib.contextmanager
def serve(http: type[BoundedHttpProtocol] = BoundedHttpProtocol, timeout_keep_alive: int = 75) -> Iterator[Server]:
    server = Server(http, timeout_keep_alive)
    serving = threading.Thread(target=server.serve)
    serving.start()  # the socket listens already
    yield server
    server.server.should_exit = True
    serving.join()
