"""How a run of a replica ended, or why it could not begin, and what people are told of it. Pure."""

from signal import Signals

import msgspec

from machineshop.runtime.record import Record

LONGEST_QUOTE = 300
"""Characters of a replica's last line in a message; the rest is in its log."""
_CUT_OFF = "The platform stopped while it was starting."


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    at: float
    began: bool = True
    """Whether its program was ever started."""
    code: int | None = None
    """None where a signal ended it, or where nobody saw it end."""
    signal: int | None = None
    last_line: str = ""
    reason: str | None = None
    """Set where the engine knows more than the code says, such as OOMKilled."""
    message: str | None = None

    @property
    def exit_code(self) -> int | None:
        """The code as shells and Kubernetes count it: 128 + n for signal n."""
        return self.code if self.signal is None else 128 + self.signal


class StartFailed(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run could not begin."""

    at: float
    reason: str
    message: str


def explain(record: Record, end: Exit | StartFailed) -> tuple[str, str, int | None]:
    """The reason in one word, the sentence that goes with it, and the exit code, if there is one."""
    if isinstance(end, StartFailed):
        return end.reason, end.message, None
    why = f"{record.draining_because} " if record.draining_because else ""
    if not end.began:
        asked = record.draining_since is not None
        message = f"{why}It was asked to end before it had begun." if asked else _CUT_OFF
        return "Completed" if asked else "Error", message, None
    if record.draining_since is not None and (end.code == 0 or end.signal == Signals.SIGTERM):
        return "Completed", f"{why}It was asked to end, and did.", end.exit_code
    if record.condemned_because is not None:
        return "Error", record.condemned_because, end.exit_code
    if record.killed:
        seconds = f"{round(record.grace_period_seconds, 1):g} s"
        return "Error", f"{why}It did not end within its grace period of {seconds} and was killed.", end.exit_code
    reason = end.reason or ("Completed" if end.code == 0 else "Error")
    return reason, end.message or _describe(record, end), end.exit_code


def how_it_ended(record: Record, end: Exit | StartFailed) -> str:
    """A run's end in a few words."""
    if record.condemned_because is not None:
        return record.condemned_because.rstrip(".")
    if isinstance(end, StartFailed) or end.reason is not None:
        return end.reason or "Error"
    if end.signal is not None:
        return f"signal {_signal_name(end.signal)}"
    return "nobody saw how" if end.code is None else f"exit code {end.code}"


def _describe(record: Record, end: Exit) -> str:
    if end.signal is not None:
        how = f"The process was ended by signal {_signal_name(end.signal)}"
    elif end.code is not None:
        how = f"The process exited with code {end.code}"
    else:
        how = "The process ended and nobody saw how"
    said = ", without having printed anything."
    if end.last_line:
        said = f". Its last line: {end.last_line[:LONGEST_QUOTE]}"
    if end.signal == Signals.SIGKILL and record.draining_since is None:
        memory = f"{record.spec.memory_gib:g} GiB"
        return (
            f"The platform did not kill it: mostly it is for want of memory, of which it may have {memory}. {how}{said}"
        )
    return how + said


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return str(number)
