"""How one predict ended; decided from its return value or its exception, without any I/O."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from .errors import ConfigError, InvalidInputError, OutputError, SprocketError
from .job import Job
from .outputs import Encoded, encode_outputs, keep_outputs

ERROR_LIMIT_CHARS = 2_000
"""Longer error texts are cut: they are read by people and stored with the job."""

TRACEBACK_LIMIT_CHARS = 3_000
"""The tail of a traceback names the line that raised; more is in the worker's log."""


@dataclass(frozen=True)
class Done:
    """Predict returned outputs that can be sent."""

    outputs: Encoded


@dataclass(frozen=True)
class Failed:
    """Predict raised, or returned something that cannot be sent.

    `input_path` is set where the input is to blame: it says where in it the mistake is, and is empty for all of it.
    `stacks` says what each rank was at. `exit_code` is set where the model is gone: the worker ends with it when the
    failure has been told.
    """

    error: str
    traceback: str | None = None
    input_path: tuple[str | int, ...] | None = None
    stacks: Mapping[str, str] | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Canceled:
    """The model took up a cancel (or never started because of one).

    `stacks` and `exit_code` are set where it took none up; see `Failed`.
    """

    stacks: Mapping[str, str] | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Exited:
    """Predict asked for the end of the process (`SystemExit`)."""

    code: int


@dataclass(frozen=True)
class Stale:
    """The attempt turned out to be over while the outputs' files were on their way: nobody wants to hear of it."""

    error: str


@dataclass(frozen=True)
class HandedBack:
    """The model was gone, or busy for too long, through no fault of the job: another worker may try."""


@dataclass(frozen=True)
class Fault:
    """Setup or shutdown went wrong, so the worker has to end.

    Attributes:
        text: what to log of it, with the traceback of an exception.
        exit_code: what the worker is to exit with.
        error: the exception, where it happened in this process.
    """

    text: str
    exit_code: int
    error: BaseException | None = None


Reportable = Done | Failed | Canceled
Outcome = Reportable | Exited | Stale | HandedBack


def outcome_of_value(job: Job, value: object) -> Outcome:
    """Decide on a predict that returned.

    A result that came in spite of a cancel counts, unless the model has looked at `cancelled()` and so knows better.
    """
    if job.cancel_seen:
        return Canceled()
    if job.follows:
        return Done(Encoded(("{}",)))
    try:
        return Done(keep_outputs(value) if job.keeps_outputs else encode_outputs(value))
    except OutputError as error:
        return Failed(f"OutputError: {error}")


def outcome_of_exception(job: Job, error: BaseException) -> Outcome:
    """Decide on a predict that raised."""
    if isinstance(error, SystemExit):
        return Exited(_exit_code(error))
    if job.cancel_seen or (job.cancel_requested and isinstance(error, asyncio.CancelledError)):
        return Canceled()
    return failure(error)


def fault_of(method: str, error: BaseException) -> Fault:
    """Describe what setup or shutdown raised."""
    if isinstance(error, ConfigError):
        return Fault(str(error), 1, error)
    text = "".join(traceback.format_exception(type(error), error, users_part(error.__traceback__))).rstrip()
    return Fault(f"{method}() failed:\n{text}", _exit_code(error) if isinstance(error, SystemExit) else 1, error)


def failure(error: BaseException) -> Failed:
    """Describe an exception of the model, or of sprocket on the model's behalf, for the job's submitter."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, InvalidInputError):
        return Failed(_cut(text, ERROR_LIMIT_CHARS), input_path=error.path)
    if isinstance(error, SprocketError):
        return Failed(_cut(text, ERROR_LIMIT_CHARS))
    return Failed(_cut(text, ERROR_LIMIT_CHARS), _tail(error))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _tail(error: BaseException) -> str:
    frames = traceback.format_exception(type(error), error, users_part(error.__traceback__))
    text = "".join(frames).rstrip()
    return text if len(text) <= TRACEBACK_LIMIT_CHARS else "…" + text[1 - TRACEBACK_LIMIT_CHARS :]


def users_part(trace: TracebackType | None) -> TracebackType | None:
    """Leave out sprocket's own frames at the top, and those of an import: they are the same every time."""
    while trace is not None and trace.tb_next and _is_ours(trace.tb_frame.f_globals.get("__package__")):
        trace = trace.tb_next
    return trace


def _is_ours(package: str | None) -> bool:
    return (package or "").partition(".")[0] in (__package__, "importlib")


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1
