"""Durations and times as clients write them."""

import re
from datetime import UTC, datetime

from machineshop.errors import InvalidRequest

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str, param: str) -> float:
    """Seconds of a Go duration such as `5s`, `1m30s` or `250ms`; a bare number is seconds.

    Raises:
        InvalidRequest: It is neither.
    """
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        return float(text)
    parts = _DURATION.findall(text) if len(text) <= 64 else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidRequest(f"'{param}' is '{text[:64]}', not a duration such as '5s' or '1m30s'.", param=param)
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def parse_time(text: str, param: str) -> float:
    """Seconds since the epoch of a time in ISO 8601; one without a zone is in UTC.

    Raises:
        InvalidRequest: It is none.
    """
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"'{param}' is '{text[:64]}', not a time such as '2030-01-31T12:00:00Z'.", param=param
        ) from None


def parse_number(text: str, param: str, *, least: int, most: int) -> int:
    """A whole number within bounds.

    Raises:
        InvalidRequest: It is none.
    """
    if not re.fullmatch(r"-?[0-9]{1,12}", text) or not least <= int(text) <= most:
        raise InvalidRequest(
            f"'{param}' is '{text[:64]}'; it must be a whole number from {least} to {most}.", param=param
        )
    return int(text)
