"""A queue's limits and fair keys: from the command line's words, and as people read them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from jig.errors import UsageError
from jig.tables import columns, fields
from jig.units import count, duration_text

NONE = "none"
USUAL_WEIGHT = 1.0

T = TypeVar("T")
FairKey = Mapping[str, Any]


@dataclass(frozen=True)
class Changes:
    """What should be another way.

    Args:
        limits: the queue's own values by their names; None takes a limit away.
        weights: by fair key; None for the usual one.
        caps: by fair key; None for none of its own.
    """

    limits: Mapping[str, int | None]
    weights: Mapping[str, float | None]
    caps: Mapping[str, int | None]

    @property
    def is_any(self) -> bool:
        """True where there is something to change."""
        return bool(self.limits or self.weights or self.caps)

    def body(self, keys: Mapping[str, FairKey]) -> dict[str, Any]:
        """What to send, given the fair keys as they are: of each that changes, all values."""
        changed = {key: self._key(key, keys.get(key) or {}) for key in (*self.weights, *self.caps)}
        return dict(self.limits) | ({"keys": changed} if changed else {})

    def _key(self, key: str, known: FairKey) -> dict[str, Any] | None:
        weight = (self.weights[key] or USUAL_WEIGHT) if key in self.weights else known.get("weight", USUAL_WEIGHT)
        cap = self.caps.get(key, known.get("max_running"))
        # One that has nothing of its own need not be kept.
        return None if weight == USUAL_WEIGHT and cap is None else {"weight": weight, "max_running": cap}


def changes(
    *,
    max_pending: int | None,
    max_running_per_key: str | None,
    keep: float | None,
    keep_count: int | None,
    weights: Sequence[str],
    caps: Sequence[str],
) -> Changes:
    """What the options ask for.

    Raises:
        UsageError: one of them cannot be read.
    """
    limits: dict[str, int | None] = {}
    if max_pending is not None:
        limits["max_pending"] = max_pending
    if max_running_per_key is not None:
        limits["max_running_per_key"] = cap_of(max_running_per_key, "--max-running-per-key")
    if keep is not None:
        limits["keep_seconds"] = round(keep)
    if keep_count is not None:
        limits["keep_count"] = keep_count
    return Changes(limits, by_key(weights, "--weight", weight_of), by_key(caps, "--cap", cap_of))


def by_key(words: Sequence[str], option: str, read: Callable[[str, str], T]) -> dict[str, T]:
    """The values of `KEY=VALUE`, by their keys.

    Raises:
        UsageError: one is not of that form.
    """
    found: dict[str, T] = {}
    for word in words:
        key, equals, value = word.rpartition("=")
        if not equals or not key:
            raise UsageError(f"{option} {word}: it must be KEY=VALUE, like {option} acme=3.")
        found[key] = read(value, f"{option} {word}")
    return found


def weight_of(value: str, where: str) -> float | None:
    """A weight; None for `none`.

    Raises:
        UsageError: it is no number above 0.
    """
    if value == NONE:
        return None
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not (weight > 0 and math.isfinite(weight)):
        raise UsageError(f"{where}: a weight is a number above 0, or none.")
    return weight


def cap_of(value: str, where: str) -> int | None:
    """A number of jobs; None for `none`.

    Raises:
        UsageError: it is no whole number above 0.
    """
    if value == NONE:
        return None
    if not value.isdecimal() or int(value) == 0:
        raise UsageError(f"{where}: it must be a whole number above 0, or none.")
    return int(value)


def settings_text(settings: Mapping[str, Any]) -> str:
    """The text of `jig queue-settings`."""
    per_key = settings.get("max_running_per_key")
    pairs = (
        ("Deployment", str(settings.get("model") or "-")),
        ("Max pending", count(settings.get("max_pending", 0), "job")),
        ("Max running per key", "no limit" if per_key is None else count(per_key, "job")),
        ("Keep", duration_text(settings.get("keep_seconds", 0))),
        ("Keep count", count(settings.get("keep_count", 0), "job")),
    )
    keys = settings.get("keys") or {}
    rows = [
        (name, f"{key.get('weight', USUAL_WEIGHT):g}", str(key.get("max_running") or "-"))
        for name, key in sorted(keys.items())
    ]
    table = columns(("FAIR KEY", "WEIGHT", "CAP"), rows) if rows else ""
    return "\n\n".join(part for part in (fields(pairs), table) if part)
