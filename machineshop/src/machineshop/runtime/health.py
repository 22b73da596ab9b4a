"""Health checks: one GET to a replica, and what its answer means.

Starting is not failure and busy is not dead: a replica that was ready stays ready until several checks in a row fail,
and a check that gets no answer from a replica with a job in hand says nothing at all. No check ever ends a replica.
"""

import asyncio
from enum import Enum

import msgspec

PROBE_TIMEOUT_SECONDS = 2.0
STARTING_INTERVAL_SECONDS = 0.05
"""While a replica is expected to get ready any moment, so that it serves almost as soon as it can."""
SLOW_STARTING_INTERVAL_SECONDS = 0.25
"""After `SLOW_STARTING_AFTER_SECONDS`: it is loading something large, and probing should cost nothing."""
SLOW_STARTING_AFTER_SECONDS = 30.0
STEADY_INTERVAL_SECONDS = 1.0
FAILURES_UNTIL_NOT_READY = 3
_STATUS_LINE_BYTES = 1024


class Answer(Enum):
    """What came back from a health check."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    SILENT = "silent"
    """The connection was taken and nothing came back in time."""
    UNREACHABLE = "unreachable"


class Probe(msgspec.Struct, frozen=True):
    """One health check's outcome."""

    answer: Answer
    detail: str = ""


class Readiness(msgspec.Struct, frozen=True):
    """What the checks so far add up to."""

    ready: bool = False
    failures: int = 0


def judge(before: Readiness, probe: Probe, *, busy: bool) -> Readiness:
    """The readiness after one more check; `busy` says that the replica has a job in hand."""
    if probe.answer is Answer.HEALTHY:
        return Readiness(ready=True)
    if not before.ready or (busy and probe.answer is Answer.SILENT):
        return before
    failures = before.failures + 1
    return Readiness(ready=failures < FAILURES_UNTIL_NOT_READY, failures=failures)


def interval_seconds(readiness: Readiness, running_seconds: float) -> float:
    """How long to wait until the next check."""
    if readiness.ready or readiness.failures:
        return STEADY_INTERVAL_SECONDS
    if running_seconds < SLOW_STARTING_AFTER_SECONDS:
        return STARTING_INTERVAL_SECONDS
    return SLOW_STARTING_INTERVAL_SECONDS


async def probe(host: str, port: int, path: str) -> Probe:
    """GET `path`: any 2xx is healthy."""
    where, timeout_seconds = f"GET {path} on port {port}", PROBE_TIMEOUT_SECONDS
    try:
        async with asyncio.timeout(timeout_seconds):
            status = await _status(host, port, path)
    except TimeoutError:
        return Probe(Answer.SILENT, f"{where}: no answer within {timeout_seconds:g} s")
    except OSError:
        return Probe(Answer.UNREACHABLE, f"{where}: nothing listens there yet")
    except ValueError:
        return Probe(Answer.UNHEALTHY, f"{where}: the answer is not HTTP")
    if 200 <= status < 300:
        return Probe(Answer.HEALTHY)
    return Probe(Answer.UNHEALTHY, f"{where}: status {status}")


async def _status(host: str, port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection(host, port, limit=_STATUS_LINE_BYTES)
    try:
        request = f"GET /{path.lstrip('/')} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        line = await reader.readline()
        protocol, status, *_ = [*line.split(), b"", b""]
        if not protocol.startswith(b"HTTP/"):
            raise ValueError(line)
        return int(status)
    finally:
        writer.transport.abort()
