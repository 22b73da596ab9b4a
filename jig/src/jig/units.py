"""Numbers as people read them: ages, durations, sizes. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from jig.errors import UsageError

SECONDS_PER_MINUTE = 60
SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86_400
UNIT_SECONDS = {"s": 1, "m": SECONDS_PER_MINUTE, "h": SECONDS_PER_HOUR, "d": SECONDS_PER_DAY}
DURATION = re.compile(r"\d+(\.\d+)?|(\d+(\.\d+)?[smhd])+", re.ASCII)
DURATION_DAYS_MAX = 36_500  # what machines count seconds in goes on for about as long
DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)
NUMBER = re.compile(r"\d+(\.\d+)?")


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago an ISO 8601 timestamp was: `12s`, `4m`, `3h`, `9d`, or `-` where there is none."""
    then = moment(timestamp)
    return "-" if then is None else coarse(max(0.0, (now - then).total_seconds()))


def moment(timestamp: str | None) -> datetime | None:
    """The time of an ISO 8601 timestamp, in UTC where it names no zone; None where there is none."""
    try:
        then = datetime.fromisoformat(timestamp or "")
    except ValueError:
        return None
    return then if then.tzinfo else then.replace(tzinfo=UTC)


def seconds_between(start: str | None, end: str | None, now: datetime) -> float | None:
    """The seconds from one timestamp to another, or to now where that is missing; None without a start."""
    begun = moment(start)
    return None if begun is None else max(0.0, ((moment(end) or now) - begun).total_seconds())


def coarse(seconds: float) -> str:
    """A duration in its largest unit: `12s`, `4m`, `3h`, `9d`."""
    if seconds < SECONDS_PER_MINUTE:
        return f"{seconds:.0f}s"
    if seconds < SECONDS_PER_HOUR:
        return f"{seconds // SECONDS_PER_MINUTE:.0f}m"
    if seconds < SECONDS_PER_DAY:
        return f"{seconds // SECONDS_PER_HOUR:.0f}h"
    return f"{seconds // SECONDS_PER_DAY:.0f}d"


def elapsed(seconds: float) -> str:
    """A duration that someone has just waited for: `0.03 s`, `4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < SECONDS_PER_MINUTE:
        return f"{seconds:.1f} s"
    if seconds >= SECONDS_PER_HOUR:
        return roughly(seconds)
    minutes, rest = divmod(round(seconds), SECONDS_PER_MINUTE)
    return f"{minutes} min {rest:02d} s"


def roughly(seconds: float) -> str:
    """A duration that nobody knows to the second: `40 s`, `4 min`, `2 h 10 min`, `3 days`."""
    if seconds < SECONDS_PER_MINUTE:
        return f"{max(1, round(seconds))} s"
    if seconds < SECONDS_PER_HOUR:
        return f"{round(seconds / SECONDS_PER_MINUTE)} min"
    if seconds < SECONDS_PER_DAY:
        hours, minutes = divmod(round(seconds / SECONDS_PER_MINUTE), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return count(round(seconds / SECONDS_PER_DAY), "day")


def duration_seconds(text: str, option: str) -> float:
    """The seconds of an option's `30s`, `10m`, `1h30m` or `7d`; a number alone is seconds.

    Raises:
        UsageError: it is something else.
    """
    if not DURATION.fullmatch(text):
        raise UsageError(f"{option} {text}: that is no duration. Write 30s, 10m, 1h30m or 7d; seconds need no unit.")
    parts = [(float(number), UNIT_SECONDS[unit or "s"]) for number, unit in DURATION_PART.findall(text)]
    seconds = sum(number * unit_seconds for number, unit_seconds in parts)
    if seconds > DURATION_DAYS_MAX * SECONDS_PER_DAY:
        raise UsageError(f"{option} {text}: that is more than {DURATION_DAYS_MAX}d.")
    return seconds


def duration_text(seconds: int) -> str:
    """A duration as options take it: `90` is `1m30s`, a week is `7d`."""
    parts = []
    for unit, unit_seconds in sorted(UNIT_SECONDS.items(), key=lambda item: -item[1]):
        number, seconds = divmod(seconds, unit_seconds)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


def size(count_bytes: float) -> str:
    """A size in binary units: `512 B`, `34.1 KiB`, `1.5 GiB`."""
    if count_bytes < 1024:
        return f"{count_bytes:.0f} B"
    for unit in ("KiB", "MiB"):
        count_bytes /= 1024
        if count_bytes < 1024:
            return f"{count_bytes:.1f} {unit}"
    return f"{count_bytes / 1024:.1f} GiB"


def rounded(value: object) -> object:
    """A JSON value with its fractions cut to what a person reads: 3 decimals, or 3 digits of what is smaller."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if not isinstance(value, float):
        return value
    return round(value, 3) if abs(value) >= 1 else float(f"{value:.3g}")


def settled(line: str) -> str:
    """The line without its numbers: one that only counts on, or names another port, says nothing new."""
    return NUMBER.sub("N", line)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 file`, `3,000 files`."""
    return f"{number} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"
