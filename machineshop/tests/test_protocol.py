"""What a connection may send before its key is looked at, over real connections."""

import asyncio
import contextlib
import json
import resource
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn
import uvloop

from machineshop import protocol
from machineshop.bodies import read_body
from machineshop.http import json_response
from machineshop.protocol import BoundedHttpProtocol, raise_open_files_limit

END = b"\r\n\r\n"
BODY_LIMIT_BYTES = 1024
START = b"GET / HTTP/1.1\r\nHost: x\r\n"


class Hasty(BoundedHttpProtocol):
    head_timeout_seconds = 0.3
    linger_seconds = 0.1
    stalled_seconds = 1.0


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


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture(scope="module")
def shared_hasty() -> Iterator[Server]:
    with serve(Hasty, timeout_keep_alive=2) as server:
        yield server


@pytest.fixture
async def server(shared_server: Server) -> AsyncIterator[Server]:
    yield shared_server
    shared_server.hang_up()


@pytest.fixture
async def hasty(shared_hasty: Server) -> AsyncIterator[Server]:
    """A server with little patience."""
    yield shared_hasty
    shared_hasty.hang_up()


@pytest.mark.parametrize(
    ("head", "refusal"),
    [
        (START + b"X-A: " + b"a" * 70_000, (431, "head_too_large")),
        (START + b"X-A: " + b"a" * 70_000 + END, (431, "head_too_large")),
        (START + b"X-A: a\r\n" * 9_000, (431, "head_too_large")),
        (START + b"X-A: a\r\n" * 201, (431, "head_too_large")),
        (START + b"X-A: a\r\n" * 200 + b"\r\n", (431, "head_too_large")),
        (b"GET /" + b"a" * 17_000, (414, "url_too_long")),
        (b"GET /" + b"a" * 17_000 + b" HTTP/1.1" + END, (414, "url_too_long")),
        (b"NONSENSE / HTTP/1.1" + END, (400, "malformed_request")),
        (b"GET / HTTP/1.1\r\nX-A: a" + END, (400, "malformed_request")),
        (START + b"host: y" + END, (400, "malformed_request")),
        (b"\x16\x03\x01\x00\x05hello", (400, "malformed_request")),
    ],
)
async def test_a_head_beyond_a_limit_is_refused(server: Server, head: bytes, refusal: tuple[int, str]) -> None:
    caller = await server.call(head)
    assert await caller.refusal() == refusal


@pytest.mark.parametrize(
    "head",
    [
        START + b"X-A: " + b"a" * 65_000 + END,
        START + b"X-A: a\r\n" * 199 + b"\r\n",
        b"GET /" + b"a" * 16_000 + b" HTTP/1.1\r\nHost: x" + END,
        b"GET / HTTP/1.1\r\nHost:" + END,
        b"GET / HTTP/1.0" + END,
    ],
)
@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_head_within_the_limits_is_served(server: Server, head: bytes, pieces: int) -> None:
    caller = await server.call()
    for start in range(0, len(head), size := len(head) // pieces + 1):
        caller.send(head[start : start + size])
        await asyncio.sleep(0.001)
    assert (await caller.answer())[0] == 200


async def test_an_endless_header_ends_the_connection_and_delays_nobody(server: Server) -> None:
    endless = await server.call(START + b"X-A: ")
    other = await server.call()

    async def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                endless.send(b"a" * (1 << 20))
                await endless.writer.drain()

    flooding = asyncio.create_task(flood())
    while not flooding.done():
        async with asyncio.timeout(60):
            other.send(START + b"\r\n")
            assert (await other.answer())[0] == 200


async def test_an_endless_trailer_is_refused(server: Server) -> None:
    head = b"POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    caller = await server.call(head % b"read" + b"X-A: ")
    caller.send(b"a" * 400_000)
    assert await caller.refusal() == (431, "head_too_large")
    answered = await server.call(head % b"deaf")
    assert (await answered.answer())[0] == 200
    answered.send(b"X-A: " + b"a" * 400_000)
    assert await answered.refusal() == (431, "head_too_large")


async def test_who_takes_nothing_of_an_answer_is_let_go_and_who_is_slow_is_not(hasty: Server) -> None:
    hasty.application.told.clear()
    with socket.create_connection(hasty.socket.getsockname()) as slow:
        slow.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        slow.settimeout(60)
        for _ in range(12):  # longer than the bound in all
            assert await asyncio.to_thread(_take, slow, 8 << 20) >= 8 << 20
            assert not await asyncio.to_thread(hasty.application.told.wait, 0.1)
        assert await asyncio.to_thread(hasty.application.told.wait, 60), "it takes nothing any more"


def _take(connection: socket.socket, size: int) -> int:
    """Read so many bytes; returns how many came."""
    taken = 0
    while taken < size and (piece := connection.recv(1 << 20)):
        taken += len(piece)
    return taken


async def test_a_slow_head_is_refused(hasty: Server) -> None:
    caller = await hasty.call(b"GET /heal")
    assert await caller.refusal() == (408, "head_too_slow")


async def test_a_head_that_drips_gets_no_more_time(hasty: Server) -> None:
    caller = await hasty.call(START)

    async def drip() -> None:
        while True:
            caller.send(b"X-A: a\r\n")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert await caller.refusal() == (408, "head_too_slow")
    dripping.cancel()


@pytest.mark.parametrize("data", [b"", b"\r\n"])
async def test_a_connection_that_asks_for_nothing_ends(hasty: Server, data: bytes) -> None:
    caller = await hasty.call(data)
    assert await caller.rest() == b""


async def test_a_slow_second_head_is_refused(hasty: Server) -> None:
    caller = await hasty.call(START + b"\r\n")
    assert (await caller.answer())[0] == 200
    caller.send(START)
    assert await caller.refusal() == (408, "head_too_slow")


async def test_half_a_request_behind_another_is_refused(hasty: Server) -> None:
    caller = await hasty.call(START + b"\r\n" + START)
    assert (await caller.answer())[0] == 200
    assert await caller.refusal() == (408, "head_too_slow")


@pytest.mark.parametrize("data", [b"", b"\r\n"])
async def test_between_requests_a_connection_may_idle_for_the_keep_alive_time(hasty: Server, data: bytes) -> None:
    caller = await hasty.call(START + b"\r\n")
    assert (await caller.answer())[0] == 200
    await asyncio.sleep(3 * Hasty.head_timeout_seconds)
    caller.send(data + START + b"\r\n")
    assert (await caller.answer())[0] == 200
    caller.send(data)
    before = asyncio.get_running_loop().time()
    assert await caller.rest() == b""
    assert asyncio.get_running_loop().time() - before > 0.5


@pytest.mark.parametrize("rest", [b"a", b"a" * 10])
async def test_the_rest_of_a_body_already_answered_holds_no_connection_for_long(hasty: Server, rest: bytes) -> None:
    caller = await hasty.call(b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
    assert (await caller.answer())[0] == 200
    caller.send(rest)
    assert await caller.rest() == b""


async def test_a_request_may_take_longer_than_its_head(hasty: Server) -> None:
    waiting = await hasty.call(b"GET /wait HTTP/1.1\r\nHost: x" + END)
    upload = await hasty.call(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
    chunked = await hasty.call(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1")
    await asyncio.sleep(3 * Hasty.head_timeout_seconds)
    hasty.go_on()
    upload.send(b"a")
    chunked.send(b"\r\na\r\n0" + END)
    assert [(await caller.answer())[0] for caller in (waiting, upload, chunked)] == [200, 200, 200]


async def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    requests = [b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n" % n + b"a" * 30_000 for n in range(20)]
    caller = await server.call(b"".join(requests))
    assert [await caller.answer() for _ in requests] == [(200, {"path": f"/{n}", "size": 30_000}) for n in range(20)]


@pytest.mark.parametrize("fault", [b"NONSENSE", START + b"X-A: " + b"a" * 70_000 + END])
async def test_a_refusal_comes_not_in_front_of_the_answers_before_it(server: Server, fault: bytes) -> None:
    caller = await server.call(b"GET /wait HTTP/1.1\r\nHost: x" + END)
    assert await asyncio.to_thread(server.application.waiting.wait, 60)
    caller.send(fault)
    other = await server.call(START + b"\r\n")
    assert (await other.answer())[0] == 200
    server.go_on()
    assert await caller.answer() == (200, {"path": "/wait", "size": 0})
    assert await caller.rest() == b""


async def test_a_large_head_behind_a_body_is_measured_without_the_body(server: Server) -> None:
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n" + b"a" * 90_000
    caller = await server.call(post + START + b"X-A: " + b"a" * 60_000 + END + post + START + b"X-A: ")
    assert [(await caller.answer())[1]["size"] for _ in range(3)] == [90_000, 0, 90_000]
    caller.send(b"a" * 400_000 + END)
    assert await caller.refusal() == (431, "head_too_large")


async def test_bodies_do_not_count(server: Server) -> None:
    size = 5_000_000
    caller = await server.call(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
    assert await caller.answer() == (200, {"path": "/", "size": size})
    chunk = b"%x\r\n" % 1000 + b"a" * 1000 + b"\r\n"
    caller.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 1000 + b"0\r\nX-Sum: 1" + END
    )
    assert await caller.answer() == (200, {"path": "/", "size": 1_000_000})
    caller.send(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 50_000 + b"0" + END
    )
    assert await caller.answer() == (200, {"path": "/", "size": 50_000})
    caller.send(b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"a" * size)
    assert await caller.answer() == (200, {"path": "/deaf", "size": 0})
    caller.send(START + b"\r\n")
    assert (await caller.answer())[0] == 200


async def test_a_body_that_waits_to_be_asked_for(server: Server) -> None:
    caller = await server.call(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue" + END)
    assert await caller.answer() == (100, None)
    caller.send(b"abc")
    assert await caller.answer() == (200, {"path": "/", "size": 3})


async def test_a_malformed_body_is_refused(server: Server) -> None:
    caller = await server.call(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")
    assert await caller.refusal() == (400, "malformed_request")


@pytest.fixture
def low_limit() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(1024, hard - 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    yield low
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_open_files_is_raised(low_limit: int) -> None:
    assert raise_open_files_limit() > low_limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == min(hard, protocol.MAX_OPEN_FILES)
    assert raise_open_files_limit() == soft


def posted(body: bytes, *headers: bytes) -> bytes:
    """A request whose answer is how long its body is, as JSON."""
    head = [b"POST /json HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(head) + END + body


async def test_bodies_that_come_whole_or_in_pieces_are_read_and_answered_in_json(server: Server) -> None:
    caller = await server.call(posted(b"1234"))
    assert await caller.answer() == (200, {"size": 4})
    caller.send(posted(b"12345678")[:-4])
    other = await server.call(posted(b""))
    assert await other.answer() == (200, {"size": 0})  # by then the first piece has been seen
    caller.send(b"5678")
    assert await caller.answer() == (200, {"size": 8})


async def test_requests_behind_one_another_get_their_answers_in_turn(server: Server) -> None:
    caller = await server.call(b"".join(posted(b"x" * size) for size in range(20)))
    assert [await caller.answer() for _ in range(20)] == [(200, {"size": size}) for size in range(20)]


async def test_an_answer_after_which_the_connection_ends_says_so(server: Server) -> None:
    caller = await server.call(posted(b"1", b"Connection: close"))
    answer = await caller.rest()
    assert b"connection: close" in answer
    assert answer.endswith(b'{"size":1}')


async def test_whoever_waits_to_be_told_to_go_on_is_told(server: Server) -> None:
    caller = await server.call(posted(b"12", b"Expect: 100-continue")[:-2])
    async with asyncio.timeout(60):
        assert await caller.reader.readuntil(END) == b"HTTP/1.1 100 Continue" + END
    caller.send(b"12")
    assert await caller.answer() == (200, {"size": 2})


async def test_a_head_is_asked_for_without_its_body(server: Server) -> None:
    caller = await server.call(b"HEAD /json HTTP/1.1\r\nHost: x\r\nConnection: close" + END)
    answer = await caller.rest()
    assert b"content-length: 10" in answer
    assert answer.endswith(END)


async def test_a_request_is_answered_while_the_one_before_it_has_still_something_to_do(server: Server) -> None:
    caller = await server.call(b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await caller.answer() == (200, {"path": "/busy", "size": 0})
    assert await asyncio.to_thread(server.application.waiting.wait, 60)
    for path in ("/during", "/again"):
        caller.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        assert await caller.answer() == (200, {"path": path, "size": 0})
    server.go_on()
    caller.send(b"GET /after HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await caller.answer() == (200, {"path": "/after", "size": 0})


@pytest.mark.parametrize("behind", [b"", START + b"\r\n", 2 * (START + b"\r\n")], ids=["none", "one", "two"])
async def test_a_request_hears_that_its_caller_is_gone_whatever_came_behind_it(server: Server, behind: bytes) -> None:
    server.application.told.clear()
    caller = await server.call(b"GET /poll HTTP/1.1\r\nHost: x\r\n\r\n" + behind)
    assert await asyncio.to_thread(server.application.waiting.wait, 60)
    caller.writer.close()
    assert await asyncio.to_thread(server.application.told.wait, 60)


async def test_a_connection_has_one_task_which_ends_with_it(server: Server) -> None:
    before = await server.tasks()
    caller = await server.call()
    for _ in range(3):
        caller.send(START + b"\r\n")
        await caller.answer()
        assert await server.tasks() == before + 1
    caller.writer.close()
    async with asyncio.timeout(60):
        while await server.tasks() > before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("path", [b"/broken", b"/nothing"])
async def test_what_nobody_foresaw_is_answered_in_the_form_of_the_api(server: Server, path: bytes) -> None:
    caller = await server.call(b"GET %b HTTP/1.1\r\nHost: x" % path + END)
    assert await caller.defect() == 500


async def test_so_it_is_beside_a_request_that_has_still_something_to_do(server: Server) -> None:
    caller = await server.call(b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await caller.answer() == (200, {"path": "/busy", "size": 0})
    caller.send(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await caller.defect() == 500
