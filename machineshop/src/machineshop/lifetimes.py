"""For how long a key is good, as people write it: `90d`, `12h`. Pure."""

import re

from machineshop.errors import InvalidRequest

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
MIN_SECONDS = 60
MAX_SECONDS = 10 * 365 * 86400
_LIFETIME = re.compile(r"([0-9]{1,9})([smhdwy])")


def parse_lifetime(text: str) -> int:
    """Seconds.

    Raises:
        InvalidRequest: It is written otherwise, or out of range.
    """
    match = _LIFETIME.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(
            f"'{text[:64]}' is no lifetime: write a number and s, m, h, d, w or y, as 90d.", param="expires_in"
        )
    return check_lifetime(int(match[1]) * SECONDS[match[2]])


def check_lifetime(seconds: int) -> int:
    """The same seconds.

    Raises:
        InvalidRequest: Out of range.
    """
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise InvalidRequest(
            f"A key is good for {MIN_SECONDS} s to 10 years, not for {seconds} s; leave it out for one without an end.",
            param="expires_in_seconds",
        )
    return seconds
