"""From what msgspec says of a value with the wrong shape to an error that names the field."""

import re

import msgspec

from machineshop.errors import MalformedBody

_MISSING = re.compile(r"missing required field `(\w+)`")


def malformed(error: msgspec.ValidationError) -> MalformedBody:
    """The error for the caller; `param` is the field that is missing or has the wrong type."""
    text, _, where = str(error).partition(" - at `$")
    path = where.rstrip("`").lstrip(".")
    missing = _MISSING.search(text)
    param = ".".join(filter(None, (path, missing[1] if missing else ""))) or None
    return MalformedBody(f"{text}, in '{path}'." if path else f"{text}.", param=param)
