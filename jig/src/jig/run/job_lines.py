"""One line of a file of jobs: what it asks for, or what is wrong with it and where. Pure, but for its files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from jig.errors import JigError, UsageError
from jig.payload import files_of
from jig.units import SECONDS_PER_DAY, size

PAYLOAD_LIMIT_BYTES = 1024 * 1024  # the platform takes no larger ones
MAX_PRIORITY = 2**31 - 1
MAX_FAIR_KEY_LETTERS = 128
MAX_IDEMPOTENCY_KEY_LETTERS = 255
MAX_DEADLINE_DAYS = 30
MAX_URL_LETTERS = 2048
BYTE_ORDER_MARK = "\ufeff"
WRAP_HINT = 'a payload that has a "payload" itself is written {"payload": {"payload": ...}}'

# Strings, and outside of them what Python takes for a number and JSON does not.
STRING_OR_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(?P<constant>NaN|-?Infinity)')
SPACE = re.compile(r"[ \t\n\r]*")


class LineError(JigError):
    """A line is no job.

    Args:
        message: what is wrong and how to mend it, without a full stop.
        column: where in the line, counted from 1.
    """

    def __init__(self, message: str, column: int = 1) -> None:
        super().__init__(message)
        self.column = column


def parse_line(raw: bytes) -> dict[str, Any]:
    """What a line asks for: `payload`, and those of the other fields that it sets.

    A line is a payload, or an object whose `payload` is one and whose other keys are the job's fields.

    Raises:
        LineError: it is neither.
    """
    text = decoded(raw)
    value = parsed(text)
    fields = value if "payload" in value else {"payload": value}
    try:
        check_fields(fields)
        check_payload(fields["payload"], is_whole_line=fields is not value)
    except FieldError as error:
        raise LineError(str(error), column_of_key(text, error.key)) from error
    return fields


class FieldError(Exception):
    """A field of the line has a value that no job can have."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def decoded(raw: bytes) -> str:
    """The line's text.

    Raises:
        LineError: it is not UTF-8.
    """
    try:
        return raw.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        column = len(raw[: error.start].decode(errors="replace")) + 1
        raise LineError("that is not UTF-8; save the file as UTF-8", column) from error


def parsed(text: str) -> dict[str, Any]:
    """The object that a line holds.

    Raises:
        LineError: it is not JSON, or not an object.
    """
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        raise LineError(f"not JSON: {error.msg}; each line is one JSON object", error.pos + 1) from error
    except RecursionError as error:
        raise LineError("its values are nested too deeply") from error
    except ValueError as error:
        raise LineError(f"not JSON: {error}", column_of_constant(text)) from error
    if not isinstance(value, dict):
        raise LineError(f'it must be a JSON object, like {{"prompt": "hi"}}, not {json_type(value)}')
    return value


def refuse_constant(name: str) -> NoReturn:
    """Python reads these, JSON has no such thing."""
    raise ValueError(f"{name} is no JSON value; write null or a number")


def check_fields(fields: Mapping[str, Any]) -> None:
    """Every field but the payload has a value that the platform takes.

    Raises:
        FieldError: one has not, or is unknown.
    """
    for key, value in fields.items():
        if key == "payload":
            continue
        if key not in FIELDS:
            known = ", ".join(("payload", *FIELDS))
            raise FieldError(key, f'"{key}" is no field of a job; known are {known}; {WRAP_HINT}')
        is_good, wanted = FIELDS[key]
        if value is not None and not is_good(value):
            raise FieldError(key, f'"{key}" must be {wanted}, not {shown(value)}')


def check_payload(payload: object, *, is_whole_line: bool) -> None:
    """The payload is an object that the platform takes, and its files are there.

    Raises:
        FieldError: it is not.
    """
    if not isinstance(payload, dict):
        raise FieldError("payload", f'"payload" must be an object, not {json_type(payload)}; {WRAP_HINT}')
    for key, value in payload.items():
        try:
            files_of({key: value})
        except UsageError as error:
            message = f"{error.message.rstrip('.')}; paths start at this folder. {(error.hint or '').rstrip('.')}"
            raise FieldError(key if is_whole_line else "payload", message) from error
    check_encoded(payload)


def check_encoded(payload: dict[str, Any]) -> None:
    """The payload can be sent.

    Raises:
        FieldError: it cannot.
    """
    try:
        count_bytes = len(encoded(payload))
    except UnicodeEncodeError as error:
        raise FieldError("payload", "a text in it holds half of a surrogate pair, which is no character") from error
    except ValueError as error:
        raise FieldError("payload", "a number in it is larger than any that JSON readers know") from error
    if count_bytes > PAYLOAD_LIMIT_BYTES:
        limit = size(PAYLOAD_LIMIT_BYTES)
        message = f'the payload has {size(count_bytes)}, at most {limit} go; put large inputs into files: "@PATH"'
        raise FieldError("payload", message)


def encoded(value: object) -> bytes:
    """A value as JSON, compact.

    Raises:
        ValueError: it holds an infinite number.
        UnicodeEncodeError: it holds half of a surrogate pair.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def column_of_key(text: str, key: str) -> int:
    """Where a key of the object stands in its text, counted from 1; 1 where it does not.

    Args:
        text: an object's JSON, known to be right.
        key: one of its own keys.
    """
    decoder = json.JSONDecoder()
    at = after_space(text, 0)
    while text[at : at + 1] in ("{", ","):
        start = after_space(text, at + 1)
        if text[start : start + 1] != '"':
            break
        name, end = decoder.raw_decode(text, start)
        if name == key:
            return start + 1
        _, end = decoder.raw_decode(text, after_space(text, after_space(text, end) + 1))
        at = after_space(text, end)
    return 1


def after_space(text: str, at: int) -> int:
    """The first place from here on that is no white space."""
    found = SPACE.match(text, at)
    return found.end() if found else at


def column_of_constant(text: str) -> int:
    """Where NaN or Infinity stands outside of strings, counted from 1."""
    for found in STRING_OR_CONSTANT.finditer(text):
        if found["constant"]:
            return found.start() + 1
    return 1


def json_type(value: object) -> str:
    """What JSON calls such a value."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def shown(value: object) -> str:
    """A wrong value, as far as it fits into an error."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}..."


def is_integer(value: object) -> bool:
    """True for a priority."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_PRIORITY


def is_deadline(value: object) -> bool:
    """True for seconds above 0, up to the most that the platform takes."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return 0 < value <= MAX_DEADLINE_DAYS * SECONDS_PER_DAY


def is_text(most: int) -> Callable[[object], bool]:
    """True for a text of 1 to `most` characters."""
    return lambda value: isinstance(value, str) and 1 <= len(value) <= most


def is_url(value: object) -> bool:
    """True for what a webhook can be sent to."""
    is_web = isinstance(value, str) and value.startswith(("https://", "http://"))
    return is_web and len(str(value)) <= MAX_URL_LETTERS


# The fields beside the payload, each with what its value must be, as a test and in words. null is the same as nothing.
FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "priority": (is_integer, "a whole number, higher goes first"),
    "fair_key": (is_text(MAX_FAIR_KEY_LETTERS), f"a text of 1 to {MAX_FAIR_KEY_LETTERS} characters"),
    "idempotency_key": (
        is_text(MAX_IDEMPOTENCY_KEY_LETTERS),
        f"a text of 1 to {MAX_IDEMPOTENCY_KEY_LETTERS} characters",
    ),
    "deadline_seconds": (is_deadline, f"a number of seconds above 0, at most {MAX_DEADLINE_DAYS} days"),
    "webhook_url": (is_url, "an http or https URL"),
    "info": (lambda value: isinstance(value, dict), "an object"),
}
