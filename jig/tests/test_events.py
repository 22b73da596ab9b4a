"""Server-sent events: read as the standard has them, over connections that break."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_platform import KEY, FakePlatform
from fake_queue import BREAK, END, HOLD, OVER

from jig import events
from jig.answers import whole_lines
from jig.client import Client
from jig.contexts import Target
from jig.errors import PlatformError, UnreachableError, UnsupportedError
from jig.events import Event, JobEvents, read_events, with_chunks


def test_events_are_read_as_the_standard_has_them() -> None:
    text = [
        ": keep-alive",
        "",
        "id: 1",
        "event: job",
        "data: {",
        "data:}",
        "",
        "data: x",
        "",
        "retry: 3",
        "",
        "id: 2",
        "data: cut",
    ]
    assert list(read_events(text)) == [Event("1", "job", "{\n}"), Event("1", "message", "x")]


def test_lines_end_with_a_line_feed_alone() -> None:
    chunks = [b"a\xe2\x80", b"\xa8b\x0c\r", b"\nc\n\nd", b"", b"e"]
    assert list(whole_lines(chunks)) == ["a\u2028b\x0c", "c", "", "de"]


@pytest.fixture
def client(platform: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(events, "pause_seconds", lambda *_: 0.0)
    with Client(Target(platform.url, KEY, "test")) as client:
        yield client


def job(status: str, **fields: Any) -> dict[str, Any]:
    return {"request_id": "job-1", "status": status, **fields}


def test_a_connection_that_breaks_goes_on_after_the_last_event(client: Client, platform: FakePlatform) -> None:
    platform.queue.connections = [
        [("7", job("pending")), BREAK],
        [("8", job("running")), END],
        [("9", job("done")), HOLD],
    ]
    notes: list[str] = []
    changes = iter(JobEvents(client, {"model": "hello"}, notes.append))
    assert [next(changes)["status"] for _ in range(3)] == ["pending", "running", "done"]
    platform.queue.may_end.set()
    asked = platform.sent("GET", "/v1/queue/events")
    assert [request.headers.get("Last-Event-ID") for request in asked] == [None, "7", "8"]
    assert notes == []  # once is no news


def test_nobody_reconnects_without_end(client: Client, platform: FakePlatform) -> None:
    platform.queue.connections = [[("7", job("pending")), BREAK]] * 100
    notes: list[str] = []
    with pytest.raises(PlatformError):
        list(JobEvents(client, {"model": "hello"}, notes.append))
    assert len(platform.sent("GET", "/v1/queue/events")) == events.TRIES
    assert all("Trying again." in note for note in notes)


def test_a_platform_in_trouble_is_asked_again(client: Client, platform: FakePlatform) -> None:
    platform.failures = [("/events", 503), ("/events", 500)]
    platform.queue.connections = [[("1", job("done")), HOLD]]
    assert next(iter(JobEvents(client, {"model": "hello"}, lambda note: None)))["status"] == "done"
    platform.queue.may_end.set()


def test_what_does_not_pass_is_an_error_at_once(client: Client, platform: FakePlatform) -> None:
    platform.failures = [("/events", 404)]
    with pytest.raises(PlatformError, match="unwell"):
        next(iter(JobEvents(client, {"model": "hello"}, lambda note: None)))
    platform.is_old = True
    with pytest.raises(UnsupportedError, match="has no GET /v1/queue/events"):
        next(iter(JobEvents(client, {"model": "hello"}, lambda note: None)))
    assert len(platform.sent("GET", "/v1/queue/events")) == 2


def test_a_platform_that_was_never_there_is_said_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(UnreachableError, match="No platform answers"):
        next(iter(JobEvents(Client(Target("http://127.0.0.1:1", KEY, "test")), {}, lambda note: None)))
    assert pauses == []


def test_an_event_that_holds_no_job_is_an_error(client: Client, platform: FakePlatform) -> None:
    platform.queue.connections = [[("1", {"nothing": True}), BREAK]]
    with pytest.raises(PlatformError, match="holds no job"):
        next(iter(JobEvents(client, {"model": "hello"}, lambda note: None)))


def test_chunks_are_put_together_and_begin_anew_with_an_attempt() -> None:
    known = with_chunks([], '{"first": 0, "chunks": ["a", {"b": 1}]}')
    known = with_chunks(known, '{"first": 2, "chunks": [null]}')
    assert known == ["a", {"b": 1}, None]
    assert with_chunks(known, '{"first": 1, "chunks": ["again", 3]}') == ["a", "again", 3]
    assert with_chunks(known, '{"first": 0, "chunks": []}') == []
    for odd in ("no JSON", "[]", '{"chunks": []}', '{"first": "0", "chunks": []}'):
        with pytest.raises(PlatformError, match="holds no chunks"):
            with_chunks(known, odd)


def test_events_end_where_nothing_is_left_to_follow(client: Client, platform: FakePlatform) -> None:
    platform.queue.connections = [[("1", job("pending")), OVER]]
    changes = list(JobEvents(client, {"model": "hello"}, lambda note: None))
    assert [change["status"] for change in changes] == ["pending"]
    assert len(platform.sent("GET", "/v1/queue/events")) == 1


def test_it_is_said_once_when_the_platform_has_begun_to_tell(client: Client, platform: FakePlatform) -> None:
    platform.queue.connections = [[("7", job("pending")), BREAK], [("8", job("done")), HOLD]]
    said: list[str] = []
    changes = iter(JobEvents(client, {"model": "hello"}, said.append, lambda: said.append("opened")))
    assert said == []
    assert [next(changes)["status"] for _ in range(2)] == ["pending", "done"]
    platform.queue.may_end.set()
    assert said == ["opened"]
