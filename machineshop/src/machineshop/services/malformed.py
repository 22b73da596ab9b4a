"""From what msgspec says of a value with the wrong shape to an error that names the field."""

import re

import msgspec

from machineshop.errors import MalformedBody

_MISSING = re.compile(r"missing required field `(\w+)`")


def malformed(error: msgspec.ValidationError, place: str = "") -> MalformedBody:
    """The error for the caller; `param` is the field that is missing or has the wrong type.

    Args:
        error: What msgspec says.
        place: Where in the body the value stands that it speaks of.
    """
    text, _, where = str(error).partition(" - at `$")
    path = (place + where.rstrip("`")).lstrip(".")
    missing = _MISSING.search(text)
    param = ".".join(filter(None, (path, missing[1] if missing else ""))) or None
    return MalformedBody(f"{text}, in '{path}'." if path else f"{text}.", param=param)
