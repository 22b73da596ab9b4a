from __future__ import annotations

import pytest

from sprocket.outcome import Canceled, Done, Exited, Failed, Outcome
from sprocket.outputs import Encoded
from sprocket.verdict import lags, silence, verdict

FIRST = Done(Encoded(('{"by":0}',)))
OTHER = Done(Encoded(("{}",)))


@pytest.mark.parametrize(
    ("outcomes", "decided"),
    [
        ({}, None),
        ({0: FIRST}, None),
        ({1: OTHER}, None),
        ({0: FIRST, 1: OTHER}, FIRST),
        ({1: OTHER, 0: FIRST}, FIRST),
        ({0: Failed("a"), 1: Failed("b")}, Failed("a")),
        ({0: FIRST, 1: Failed("b", "trace")}, Failed("rank 1: b", "trace")),
        ({0: Failed("a"), 1: OTHER}, Failed("a")),
        ({0: Canceled(), 1: Canceled()}, Canceled()),
        ({0: Canceled(), 1: Failed("gone")}, Canceled()),
        ({0: FIRST, 1: Canceled()}, FIRST),
        ({1: Exited(5)}, Exited(5)),
        ({0: FIRST, 1: Exited(5)}, Exited(5)),
    ],
)
def test_what_a_job_has_come_to(outcomes: dict[int, Outcome], decided: Outcome | None) -> None:
    assert verdict(outcomes, 2) == decided


@pytest.mark.parametrize(
    ("outcomes", "lagging"),
    [({}, False), ({1: OTHER}, False), ({1: Canceled()}, False), ({0: FIRST}, True), ({1: Failed("b")}, True)],
)
def test_when_the_others_should_end_soon(outcomes: dict[int, Outcome], lagging: bool) -> None:
    assert lags(outcomes) is lagging


def test_silent_ranks_are_named_with_the_reason() -> None:
    assert silence({0: FIRST}, 2, 60.0) == "rank 1 has not come to an end within 60 s after rank 0 was done"
    assert silence({1: Failed("ValueError: x")}, 4, 0.5) == (
        "ranks 0, 2, 3 have not come to an end within 0.5 s after rank 1 failed (ValueError: x)"
    )
