"""How many jobs a worker claims ahead."""

from __future__ import annotations

from sprocket.pace import AHEAD_LIMIT, AHEAD_SECONDS, STEADY_PREDICTS, Pace


def paced(*seconds: float) -> Pace:
    pace = Pace()
    for each in seconds:
        pace.note(each)
    return pace


def test_nothing_is_claimed_ahead_until_predicts_were_short_for_a_while() -> None:
    short = AHEAD_SECONDS / 100
    assert paced().ahead == 0
    assert paced(*[short] * (STEADY_PREDICTS - 1)).ahead == 0
    assert paced(*[short] * STEADY_PREDICTS).ahead == AHEAD_LIMIT


def test_what_is_claimed_ahead_is_work_for_a_moment() -> None:
    assert paced(*[AHEAD_SECONDS / 2.5] * STEADY_PREDICTS).ahead == 2
    assert paced(*[AHEAD_SECONDS * 0.9] * STEADY_PREDICTS).ahead == 1
    assert paced(*[0.0] * STEADY_PREDICTS).ahead == AHEAD_LIMIT


def test_one_long_predict_ends_it() -> None:
    pace = paced(*[0.0001] * 100, AHEAD_SECONDS * 2)
    assert pace.ahead == 0
    for _ in range(STEADY_PREDICTS):
        assert pace.ahead == 0
        pace.note(0.0001)
    assert pace.ahead == AHEAD_LIMIT


def test_what_predicts_take_now_counts_more_than_what_they_took() -> None:
    assert paced(*[0.0001] * 100, *[AHEAD_SECONDS * 0.9] * 20).ahead == 1
