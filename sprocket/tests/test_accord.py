"""A cancel is taken up at the same call of `cancelled()` in every rank."""

from __future__ import annotations

import random
import threading
import time

import pytest

from sprocket import accord
from sprocket.accord import Accord, first_cancelled


def test_nothing_is_cancelled_before_it_is_settled() -> None:
    rank = Accord()
    assert [rank.says_cancelled() for _ in range(3)] == [False, False, False]
    assert rank.hold() == 3


def test_the_call_that_was_settled_says_it_first() -> None:
    rank = Accord()
    rank.says_cancelled()
    rank.hold()
    rank.settle(4)
    assert [rank.says_cancelled() for _ in range(4)] == [False, False, True, True]


def test_the_first_call_that_no_rank_has_made_is_chosen() -> None:
    assert first_cancelled([5, 6, 5]) == 7
    assert first_cancelled([0, 0]) == 1


def test_ranks_that_run_on_meanwhile_all_leave_at_the_same_step() -> None:
    ranks = [Accord() for _ in range(3)]
    left_at = [0, 0, 0]

    def live(number: int) -> None:
        steps = random.Random(number)
        while not ranks[number].says_cancelled():
            left_at[number] += 1
            time.sleep(steps.random() / 1000)

    threads = [threading.Thread(target=live, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    calls = []
    for rank in ranks:
        calls.append(rank.hold())
        time.sleep(0.01)  # the others run on
    for rank in ranks:
        rank.settle(first_cancelled(calls))
    for thread in threads:
        thread.join(60)

    assert left_at == [max(calls)] * 3


def test_a_rank_that_is_never_told_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accord, "HOLD_SECONDS", 0.01)
    rank = Accord()
    rank.hold()
    assert rank.says_cancelled() is False
    assert rank.hold() == 1
