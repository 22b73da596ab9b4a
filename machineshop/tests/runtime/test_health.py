"""Health checks over real sockets, and what they add up to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from machineshop.runtime import health
from machineshop.runtime.health import Answer, Probe, Readiness, describe, interval_seconds, judge, probe

HEALTHY, UNHEALTHY, SILENT = Probe(Answer.HEALTHY), Probe(Answer.UNHEALTHY), Probe(Answer.SILENT)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: bytes | None) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Answer.HEALTHY),
        (b"HTTP/1.0 204 No Content\r\n\r\n", Answer.HEALTHY),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Answer.UNHEALTHY),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", Answer.UNHEALTHY),
        (b"HTTP/1.1 302 Found\r\n\r\n", Answer.UNHEALTHY),
        (b'HTTP/1.1 503 No\r\na: b\r\n\r\n{"status": "starting"}', Answer.STARTING),
        (b'HTTP/1.1 503 No\r\na: b\r\n\r\n{"status": "draining"}', Answer.DRAINING),
        (b'HTTP/1.1 503 No\r\na: b\r\n\r\n{"status": "healthy"}', Answer.UNHEALTHY),
        (b'HTTP/1.1 500 No\r\na: b\r\n\r\n{"status": "starting"}', Answer.UNHEALTHY),
        (b'HTTP/1.1 503 No\r\na: b\r\n\r\n{"status": "\xff"}', Answer.UNHEALTHY),
        (b'HTTP/1.1 503 No\r\na: b\r\n\r\n["starting"]', Answer.UNHEALTHY),
        (b"HTTP/1.1 503 No\r\na: " + b"b" * 9000, Answer.UNHEALTHY),
        (b"HTTP/1.1 503 No\r\na: b\r\n\r\n" + b"x" * 9000, Answer.UNHEALTHY),
        (b"SSH-2.0-server\r\n", Answer.UNHEALTHY),
        (b"HTTP/1.1\r\n", Answer.UNHEALTHY),
        (b"x" * 5000, Answer.UNHEALTHY),
        (b"", Answer.UNHEALTHY),
    ],
)
async def test_what_an_answer_means(answer: bytes, expected: Answer) -> None:
    async with listening(answer) as port:
        assert (await probe("127.0.0.1", port, "/health")).answer is expected


async def test_silence_and_absence_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_TIMEOUT_SECONDS", 0.5)
    async with listening(None) as port:
        silent = await probe("127.0.0.1", port, "/health")
    assert (silent.answer, silent.detail) == (Answer.SILENT, f"GET /health on port {port}: no answer within 0.5 s")
    assert (await probe("127.0.0.1", port, "/health")).answer is Answer.UNREACHABLE


async def test_an_answer_whose_end_does_not_come_is_judged_by_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "BODY_TIMEOUT_SECONDS", 0.05)
    closed = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 No\r\na: b\r\n\r\n{")
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        closed.set()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        seen = await probe("127.0.0.1", port, "/health")
        await closed.wait()
    assert seen.answer is Answer.UNHEALTHY
    assert f"GET /health on port {port}: status 503" in seen.detail


async def test_a_wrong_answer_says_how_to_mend_it_with_the_port_that_the_user_knows() -> None:
    async with listening(b"HTTP/1.1 404 Not Found\r\n\r\n") as port:
        wrong = await probe("127.0.0.1", port, "/health", known_port=8000)
    absent = await probe("127.0.0.1", port, "/health", known_port=8000)
    assert wrong.detail == (
        "GET /health on port 8000: status 404; its program must answer 200 there, "
        "or health_check_path must name the path where it does"
    )
    assert absent.detail == (
        "GET /health on port 8000: nothing listens there; its program must listen on 0.0.0.0:$PORT, where PORT is 8000"
    )
    why = health.is_over(absent, 0, 3.0, 2, ready=False)
    assert why == f"It was not ready 2 s after its start (startup_timeout_seconds): {absent.detail}."


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (3, "its setup() is still running"),
        (25, "its setup() is still running (20 s)"),
        (59.9, "its setup() is still running (50 s)"),
        (150, "its setup() is still running (2 min)"),
    ],
)
def test_a_replica_that_sets_up_says_for_how_long(seconds: float, expected: str) -> None:
    assert describe(Probe(Answer.STARTING, "status 503"), Readiness(), seconds) == expected


def test_not_to_listen_is_a_normal_start_at_first_and_a_problem_later() -> None:
    unreachable = Probe(Answer.UNREACHABLE, "GET /health on port 1: nothing listens there")
    assert describe(unreachable, Readiness(), 2.0) == "its program is starting and does not listen on 0.0.0.0:$PORT yet"
    assert describe(unreachable, Readiness(), health.STARTING_SECONDS) == unreachable.detail
    assert describe(unreachable, Readiness(ready=False, failures=3), 2.0) == unreachable.detail
    assert "draining" in describe(Probe(Answer.DRAINING), Readiness(), 2.0)


def judged(*probes: Probe, busy: bool = False) -> bool:
    readiness = Readiness()
    for one in probes:
        readiness = judge(readiness, one, busy=busy)
    return readiness.ready


def test_one_healthy_answer_makes_ready_and_three_failures_in_a_row_unmake_it() -> None:
    assert not judged(UNHEALTHY, UNHEALTHY, UNHEALTHY, UNHEALTHY)
    assert judged(UNHEALTHY, HEALTHY)
    assert judged(HEALTHY, UNHEALTHY, UNHEALTHY)
    assert judged(HEALTHY, UNHEALTHY, UNHEALTHY, HEALTHY, UNHEALTHY, UNHEALTHY)
    assert not judged(HEALTHY, UNHEALTHY, SILENT, UNHEALTHY)


def test_a_replica_with_a_job_in_hand_may_be_silent_as_long_as_it_likes() -> None:
    assert judged(HEALTHY, *[SILENT] * 20, busy=True)
    assert not judged(HEALTHY, *[Probe(Answer.UNREACHABLE)] * 3, busy=True)


def test_checks_are_frequent_only_while_a_replica_may_get_ready_any_moment() -> None:
    assert interval_seconds(Readiness(), 1.0, 0) == 0.05
    assert interval_seconds(Readiness(), 600.0, 0) == 0.25
    assert interval_seconds(Readiness(ready=True), 1.0, 0) == health.STEADY_INTERVAL_SECONDS
    assert interval_seconds(Readiness(failures=3), 600.0, 0) == health.STEADY_INTERVAL_SECONDS


def test_a_replica_that_answers_wrongly_is_asked_ever_less_often_until_it_answers_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "STEADY_INTERVAL_SECONDS", 1.0)
    waits, wrong = [], 0
    for _ in range(7):
        wrong = health.wrong_answers(wrong, UNHEALTHY)
        waits.append(interval_seconds(Readiness(), 1.0, wrong))
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert interval_seconds(Readiness(), 1.0, health.wrong_answers(wrong, Probe(Answer.STARTING))) == 0.05


SILENT, NOT_THERE, SICK = Probe(Answer.SILENT), Probe(Answer.UNREACHABLE), Probe(Answer.UNHEALTHY)


def test_a_slow_start_is_no_failure_until_its_time_is_over() -> None:
    assert health.is_over(NOT_THERE, 0, 600.0, 1800, ready=False) is None
    why = health.is_over(NOT_THERE, 0, 1801.0, 1800, ready=False)
    assert why is not None
    assert "startup_timeout_seconds" in why


def test_what_leaves_many_checks_in_a_row_unanswered_is_dead_unless_it_is_busy() -> None:
    count = 0
    for _ in range(health.FAILURES_UNTIL_DEAD):
        assert health.is_over(SILENT, count, 1e6, 1800, ready=True) is None
        count = health.unanswered(count, SILENT if count % 2 else NOT_THERE, busy=False)
    assert health.is_over(SILENT, count, 1e6, 1800, ready=True) is not None
    assert health.unanswered(count, SILENT, busy=True) == 0
    assert health.unanswered(count, SICK, busy=False) == 0, "it answers, so it lives"
