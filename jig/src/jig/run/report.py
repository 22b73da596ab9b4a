"""What a run says of itself: on its way, at its end, and when it is interrupted. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from jig.job import one_line
from jig.run.jobs import Counts
from jig.units import count, elapsed, roughly

RATE_SECONDS = 30.0  # how far back a rate looks: as fast as lately, not as on the average since the start
RATE_GAP_SECONDS = 0.5
ERROR_LETTERS = 160


@dataclass
class Rate:
    """How many jobs a second there have been lately."""

    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def per_second(self, now: float, total: int) -> float:
        """Jobs a second, given that there have been so many until now; 0 as long as nobody can tell."""
        if not self._samples or now - self._samples[-1][0] >= RATE_GAP_SECONDS:
            self._samples.append((now, total))
        while now - self._samples[0][0] > RATE_SECONDS:
            self._samples.popleft()
        then, before = self._samples[0]
        return (total - before) / (now - then) if now > then else 0.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        counts: how many jobs stand how.
        is_watched: how they end is waited for.
        rate: jobs a second lately, that ended, or that were submitted where nobody waits for more.
        note: why it does not get on, maybe empty.
    """

    counts: Counts
    is_watched: bool
    rate: float
    note: str = ""

    @property
    def completed(self) -> int:
        """How many jobs are where the run wants them."""
        return self.counts.ended if self.is_watched else self.counts.submitted

    @property
    def line(self) -> str:
        """It all in one line, but for how many there are."""
        counts = self.counts
        parts = [f"{counts.submitted:,} submitted"] if counts.submitted < counts.total or not self.is_watched else []
        if self.is_watched:
            parts.append(f"{counts.done:,} done")
            parts += unsuccessful(counts)
        if self.rate:
            parts.append(f"{rate_text(self.rate)} jobs/s")
        if remaining := self.remaining_text:
            parts.append(remaining)
        return ", ".join(parts) + (f": {one_line(self.note)}" if self.note else "")

    @property
    def remaining_text(self) -> str:
        """How long it will still take, as fast as it has been lately."""
        left = self.counts.total - self.completed
        return f"{roughly(left / self.rate)} left" if left and self.rate else ""


def rate_text(rate: float) -> str:
    """Jobs a second with as many digits as mean something."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def unsuccessful(counts: Counts) -> list[str]:
    """How many ended without a result, in which way."""
    words = (("failed", counts.failed), ("canceled", counts.canceled), ("no longer kept", counts.gone))
    return [f"{number:,} {word}" for word, number in words if number]


def summary_text(
    counts: Counts, seconds: float, errors: Sequence[tuple[int, str, str]], file_name: str, name: str
) -> str:
    """The end of a watched run, for people."""
    parts = ", ".join([f"{counts.done:,} done", *unsuccessful(counts)])
    rate = f", {rate_text(counts.ended / seconds)} jobs/s" if seconds > 0 else ""
    lines = [f"{count(counts.ended, 'job')} in {elapsed(seconds)}{rate}: {parts}."]
    if errors:
        missing = counts.ended - counts.done
        lines.append("Without a result:" if len(errors) == missing else f"The first of {missing:,} without a result:")
        lines += [f"  {file_name}:{line}  {request_id}  {cut(why)}" for line, request_id, why in sorted(errors)]
        if counts.failed:
            lines.append(
                f"All that failed: jig jobs list {name} --status failed; again: jig jobs retry ID... --name {name}"
            )
    return "\n".join(lines)


def cut(text: str) -> str:
    """As much of an error as one line takes."""
    line = one_line(text.strip())
    return line if len(line) <= ERROR_LETTERS else f"{line[:ERROR_LETTERS]}..."


def summary_document(
    counts: Counts, seconds: float | None, errors: Sequence[tuple[int, str, str]], run_id: str
) -> dict[str, object]:
    """The same for programs; of a run that is not over, `seconds` is None."""
    document: dict[str, object] = {
        "run_id": run_id,
        "jobs": counts.total,
        "submitted": counts.submitted,
        "submitted_before": counts.repeated,
        "done": counts.done,
        "failed": counts.failed,
        "canceled": counts.canceled,
        "gone": counts.gone,
    }
    if seconds is not None:
        document |= {"seconds": round(seconds, 3), "jobs_per_second": round(counts.ended / max(seconds, 0.001), 3)}
    found = [{"line": line, "request_id": request_id, "error": why} for line, request_id, why in sorted(errors)]
    return document | {"errors": found}


def broken_off_text(counts: Counts, in_flight: int, *, is_watched: bool) -> str:
    """How far a run has come that is interrupted."""
    perhaps = f" and perhaps {in_flight:,} more, whose request was on its way" if in_flight else ""
    submitted = f"{counts.submitted:,} of {count(counts.total, 'job')} submitted{perhaps}"
    if not is_watched or not counts.submitted:
        return f"{submitted}."
    left = counts.submitted - counts.ended
    ended = ", ".join([f"{counts.done:,} done", *unsuccessful(counts)])
    return f"{submitted}; {ended}, {left:,} not ended, and they go on."
