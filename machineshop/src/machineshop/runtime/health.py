"""Health checks: one GET to a replica, and what its answer means.

Starting is not failure and busy is not dead: a replica that was ready stays ready until several checks in a row fail,
and a check that gets no answer from a replica with a job in hand says nothing at all. A run is ended only where waiting
does not help: it has not got ready within its startup timeout, or, once ready and with nothing in hand, it has left
many checks in a row without an answer.
"""

import asyncio
from enum import Enum
from http import HTTPStatus

import msgspec

PROBE_TIMEOUT_SECONDS = 2.0
STARTING_INTERVAL_SECONDS = 0.05
"""While a replica is expected to get ready any moment, so that it serves almost as soon as it can."""
SLOW_STARTING_INTERVAL_SECONDS = 0.25
"""After `SLOW_STARTING_AFTER_SECONDS`: it is loading something large, and probing should cost nothing."""
SLOW_STARTING_AFTER_SECONDS = 30.0
STEADY_INTERVAL_SECONDS = 1.0
STARTING_SECONDS = 10.0
"""So long a program may take to listen and nobody should think that anything is wrong: large libraries load slowly."""
FAILURES_UNTIL_NOT_READY = 3
FAILURES_UNTIL_DEAD = 30
"""Checks in a row without any answer: half a minute where nothing listens, and more where nobody answers. Checks are
counted, and not seconds, so that a server that was halted itself draws no conclusion from that."""
BODY_TIMEOUT_SECONDS = 0.5
"""For the rest of an answer whose status has told what counts."""
_STEP_SECONDS = 10
_HEAD_BYTES = 4096
_BODY_BYTES = 1024


class Answer(Enum):
    """What came back from a health check."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    STARTING = "starting"
    """It says so itself: its setup is running."""
    DRAINING = "draining"
    """It says so itself."""
    SILENT = "silent"
    """The connection was taken and nothing came back in time."""
    UNREACHABLE = "unreachable"


_STATES = {"starting": Answer.STARTING, "draining": Answer.DRAINING}


class Probe(msgspec.Struct, frozen=True):
    """One health check's outcome."""

    answer: Answer
    detail: str = ""


class _Body(msgspec.Struct, frozen=True):
    status: str = ""


_BODY = msgspec.json.Decoder(_Body)


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


def unanswered(before: int, probe: Probe, *, busy: bool) -> int:
    """How many checks in a row a replica with nothing in hand has left without any answer."""
    return before + 1 if probe.answer in (Answer.SILENT, Answer.UNREACHABLE) and not busy else 0


def wrong_answers(before: int, probe: Probe) -> int:
    """How many checks in a row have had an answer that is not healthy, and that names no state."""
    return before + 1 if probe.answer is Answer.UNHEALTHY else 0


def is_over(
    probe: Probe, unanswered: int, running_seconds: float, startup_timeout_seconds: float, *, ready: bool
) -> str | None:
    """Why a run must be ended and started again, as a sentence; None where it need not.

    Args:
        probe: The last check.
        unanswered: Checks in a row without any answer.
        running_seconds: How long its process has been running.
        startup_timeout_seconds: How long it may take to get ready.
        ready: Whether this run has ever been ready.
    """
    if not ready and running_seconds > startup_timeout_seconds:
        late = f"It was not ready {startup_timeout_seconds:g} s after its start (startup_timeout_seconds)"
        return f"{late}: {_explain(probe, running_seconds)}."
    if ready and unanswered >= FAILURES_UNTIL_DEAD:
        return f"It had nothing in hand and left {unanswered} health checks in a row without an answer."
    return None


def interval_seconds(readiness: Readiness, running_seconds: float, wrong_answers: int) -> float:
    """How long to wait until the next check: ever longer where answers are wrong, as each may be a line of a log."""
    if readiness.ready or readiness.failures:
        return STEADY_INTERVAL_SECONDS
    if wrong_answers:
        return min(STEADY_INTERVAL_SECONDS, STARTING_INTERVAL_SECONDS * 2.0 ** min(wrong_answers, 30))
    if running_seconds < SLOW_STARTING_AFTER_SECONDS:
        return STARTING_INTERVAL_SECONDS
    return SLOW_STARTING_INTERVAL_SECONDS


async def probe(host: str, port: int, path: str, *, known_port: int | None = None, proxied: bool = False) -> Probe:
    """GET `path`: any 2xx is healthy; of other answers only a worker's own JSON `{"status": "starting"}` is read.

    Args:
        host: Where it listens.
        port: Where it listens.
        path: What to ask for.
        known_port: Where it listens as its user knows it, if that is another one.
        proxied: Something stands in between that takes connections also while nothing listens, and then hangs up.
    """
    known_port = known_port or port
    where, timeout_seconds = f"GET {path} on port {known_port}", PROBE_TIMEOUT_SECONDS
    try:
        async with asyncio.timeout(timeout_seconds):
            status, state = await _ask(host, port, path, proxied=proxied)
    except TimeoutError:
        return Probe(Answer.SILENT, f"{where}: no answer within {timeout_seconds:g} s")
    except OSError:
        mend = f"its program must listen on 0.0.0.0:$PORT, where PORT is {known_port}"
        return Probe(Answer.UNREACHABLE, f"{where}: nothing listens there; {mend}")
    except ValueError:
        return Probe(Answer.UNHEALTHY, f"{where}: the answer is not HTTP")
    if 200 <= status < 300:
        return Probe(Answer.HEALTHY)
    return Probe(_STATES.get(state, Answer.UNHEALTHY), f"{where}: status {status}; {_mend(status)}")


def _mend(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "its program must answer 200 there"
    return "its program must answer 200 there, or health_check_path must name the path where it does"


def describe(probe: Probe, readiness: Readiness, running_seconds: float) -> str:
    """Why a replica is not ready, for people.

    Args:
        probe: The last check.
        readiness: What the checks add up to, with this one.
        running_seconds: How long its process has been running.
    """
    never_answered = probe.answer is Answer.UNREACHABLE and not readiness.failures
    if never_answered and running_seconds < STARTING_SECONDS:
        return "its program is starting and does not listen on 0.0.0.0:$PORT yet"
    return _explain(probe, running_seconds)


def _explain(probe: Probe, running_seconds: float) -> str:
    if probe.answer is Answer.STARTING:
        return f"its setup() is still running{_for_so_long(running_seconds)}"
    if probe.answer is Answer.DRAINING:
        return "it is draining: it was asked to end, and not by the platform"
    return probe.detail


def _for_so_long(seconds: float) -> str:
    """In steps, so that whoever prints each new message prints few."""
    if seconds < _STEP_SECONDS:
        return ""
    if seconds < 60:
        return f" ({seconds // _STEP_SECONDS * _STEP_SECONDS:.0f} s)"
    return f" ({seconds // 60:.0f} min)"


async def _ask(host: str, port: int, path: str, *, proxied: bool) -> tuple[int, str]:
    """The status of the answer, and where that is 503 the state that its body names."""
    reader, writer = await asyncio.open_connection(host, port, limit=_HEAD_BYTES)
    try:
        request = f"GET /{path.lstrip('/')} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        line = await reader.readline()
        if not line and proxied:
            raise ConnectionResetError
        protocol, status, *_ = [*line.split(), b"", b""]
        if not protocol.startswith(b"HTTP/"):
            raise ValueError(line)
        return int(status), await _state(reader) if int(status) == HTTPStatus.SERVICE_UNAVAILABLE else ""
    finally:
        writer.transport.abort()


async def _state(reader: asyncio.StreamReader) -> str:
    """The `status` of an answer's JSON; empty where there is none."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            await reader.readuntil(b"\r\n\r\n")
            body = b""
            while len(body) < _BODY_BYTES and (chunk := await reader.read(_BODY_BYTES)):
                body += chunk
        return _BODY.decode(body).status
    except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError, ValueError):
        return ""
