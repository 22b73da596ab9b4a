"""Requests on one connection: each is answered in its turn, and hears that its caller is gone."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from protocol_server import END, START, Server, serve


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
async def server(shared_server: Server) -> AsyncIterator[Server]:
    yield shared_server
    shared_server.hang_up()


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
