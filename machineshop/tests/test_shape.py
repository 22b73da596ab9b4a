"""JSON that some reader along the way could not take is refused at the door."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineshop.api.shape import MAX_DEPTH, MAX_DIGITS, check_shape
from machineshop.errors import MalformedBody


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b"[{"])
def test_deep_nesting_is_refused_however_it_is_made(opening: bytes) -> None:
    with pytest.raises(MalformedBody, match="levels deep"):
        check_shape(opening * 100_000)


def test_the_limits_themselves_pass() -> None:
    check_shape(nested(MAX_DEPTH))
    check_shape(b'{"a":' + b"9" * MAX_DIGITS + b"}")
    with pytest.raises(MalformedBody, match="digits"):
        check_shape(b'{"a":' + b"9" * (MAX_DIGITS + 1) + b"}")


def test_what_stands_in_a_text_does_not_count() -> None:
    check_shape(json.dumps({"a": "[" * 1000, "b": "1" * 1000, "c": '\\"' * 300 + "{" * 500}).encode())
    check_shape(json.dumps([[]] * 5000).encode())


@given(st.binary(max_size=300))
def test_any_bytes_are_passed_or_refused(body: bytes) -> None:
    try:
        check_shape(body)
    except MalformedBody as refused:
        assert refused.message


@given(st.recursive(st.none() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2), max_leaves=20))
def test_ordinary_json_passes(value: object) -> None:
    check_shape(json.dumps(value).encode())


@pytest.mark.parametrize("inside", [b'\\"', b"\\", b"x", b'\\\\"'])
def test_a_text_without_an_end_is_looked_at_once(inside: bytes) -> None:
    # One look at each byte takes milliseconds; a look back from each of them would take hours.
    with pytest.raises(MalformedBody):
        check_shape(b"[" * (MAX_DEPTH + 1) + b'"' + inside * 1_000_000)


def test_more_brackets_than_anybody_needs_are_refused() -> None:
    with pytest.raises(MalformedBody, match="brackets"):
        check_shape(b"[" + b"[]," * 2_000_000 + b"[]]")
