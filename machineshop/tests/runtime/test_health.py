"""Health checks over real sockets, and what they add up to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from machineshop.runtime import health
from machineshop.runtime.health import Answer, Probe, Readiness, interval_seconds, judge, probe

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
    monkeypatch.setattr(health, "PROBE_TIMEOUT_SECONDS", 0.1)
    async with listening(None) as port:
        silent = await probe("127.0.0.1", port, "/health")
    assert (silent.answer, silent.detail) == (Answer.SILENT, f"GET /health on port {port}: no answer within 0.1 s")
    assert (await probe("127.0.0.1", port, "/health")).answer is Answer.UNREACHABLE


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
    assert interval_seconds(Readiness(), 1.0) == 0.05
    assert interval_seconds(Readiness(), 600.0) == 0.25
    assert interval_seconds(Readiness(ready=True), 1.0) == health.STEADY_INTERVAL_SECONDS
    assert interval_seconds(Readiness(failures=3), 600.0) == health.STEADY_INTERVAL_SECONDS
