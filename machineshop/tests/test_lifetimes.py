"""How long a key is good, as people write it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machineshop.errors import InvalidRequest
from machineshop.lifetimes import MAX_SECONDS, MIN_SECONDS, SECONDS, parse_lifetime


@pytest.mark.parametrize(("text", "seconds"), [("90d", 7_776_000), ("12h", 43_200), (" 1y ", 31_536_000), ("60s", 60)])
def test_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_lifetime(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "1.5d", "59s", "90 d", "\u0669\u0660d", "90D", "9" * 99 + "d"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_lifetime(text)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text() | st.from_regex(r"[0-9]{1,12}[smhdwy]"))
def test_any_text_is_a_lifetime_within_bounds_or_refused(text: str) -> None:
    try:
        seconds = parse_lifetime(text)
    except InvalidRequest as refused:
        assert refused.message
    else:
        assert MIN_SECONDS <= seconds <= MAX_SECONDS
        assert seconds % SECONDS[text.strip()[-1]] == 0
