"""From what msgspec says of a value with the wrong shape to an error that names the field."""

import difflib
import re
from itertools import islice
from typing import Any, get_args

import msgspec

from machineshop.errors import MalformedBody

_MISSING = re.compile(r"missing required field `(\w+)`")
_BOUND = re.compile(r"Expected `(\w+)` (of length )?(>=|<=|>|<) ([0-9.]+)")
_SIGNS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_THINGS = {"str": ("character", "characters"), "array": ("entry", "entries"), "object": ("entry", "entries")}
_PLAIN_DIGITS = 5  # nobody writes the port 65,535
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Among so many fields that a route does not know, the one that is meant is looked for.
_FIELDS_COMPARED = 100


def malformed(
    error: msgspec.ValidationError, body: bytes, decoder: msgspec.json.Decoder[Any], place: str = ""
) -> MalformedBody:
    """The error for the caller; `param` is the field that is missing or has the wrong type.

    Args:
        error: What msgspec says.
        body: The value that it speaks of, as JSON.
        decoder: Whose error it is.
        place: Where in the whole body that value stands.
    """
    text, _, where = str(error).partition(" - at `$")
    path = (place + where.rstrip("`")).lstrip(".")
    if path and (bound := _BOUND.fullmatch(text)):
        return MalformedBody(_of_bound(path, *bound.groups()), param=path)
    missing = _MISSING.search(text)
    param = ".".join(filter(None, (path, missing[1] if missing else ""))) or None
    sent = _misspelt(missing[1], body, decoder.type) if missing and not where else None
    hint = f" You sent `{sent}`: did you mean `{missing[1]}`?" if missing and sent else ""
    return MalformedBody(f"{text}, in '{path}'.{hint}" if path else f"{text}.{hint}", param=param)


def _of_bound(path: str, kind: str, is_length: str | None, sign: str, number: str) -> str:
    """`'keep_seconds' must be at least 60.`"""
    number = number.removesuffix(".0")
    written = f"{int(number):,}" if number.isdecimal() and len(number) > _PLAIN_DIGITS else number
    bound = f"{_SIGNS[sign]} {written}"
    if not is_length:
        return f"'{path}' must be {bound}."
    one, several = _THINGS.get(kind, ("byte", "bytes"))
    return f"'{path}' must have {bound} {one if number == '1' else several}."


def _misspelt(missing: str, body: bytes, wanted: Any) -> str | None:
    """The field of an object that may be the one that is missing."""
    types = [one for one in get_args(wanted) or (wanted,) if hasattr(one, "__struct_fields__")]
    known = {field.encode_name for one in types for field in msgspec.structs.fields(one)}
    try:
        sent = _OBJECT.decode(body)
    except msgspec.DecodeError:  # behind the object comes what is no JSON
        return None
    unknown = (name for name in sent if name not in known)
    return next(iter(difflib.get_close_matches(missing, islice(unknown, _FIELDS_COMPARED), n=1)), None)
