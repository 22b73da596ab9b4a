"""Numbers as people read them: ages, durations, sizes. Pure."""

from __future__ import annotations

import re
from datetime import datetime

SECONDS_PER_MINUTE = 60
SECONDS_PER_HOUR = 3600
SECONDS_PER_DAY = 86_400
NUMBER = re.compile(r"\d+(\.\d+)?")


def age(timestamp: str | None, now: datetime) -> str:
    """How long ago an ISO 8601 timestamp was: `12s`, `4m`, `3h`, `9d`, or `-` where there is none."""
    if not timestamp:
        return "-"
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return "-"
    if then.tzinfo is None:
        then = then.replace(tzinfo=now.tzinfo)
    return coarse(max(0.0, (now - then).total_seconds()))


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
    """A duration that someone has just waited for: `0.03 s`, `4.2 s`, `3 min 05 s`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < SECONDS_PER_MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), SECONDS_PER_MINUTE)
    return f"{minutes} min {rest:02d} s"


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


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 file`, `3 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
