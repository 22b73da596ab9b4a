"""Whoever guesses keys is slowed down, and nobody else."""

import pytest

from machineshop.errors import TooManyFailures, status_of
from machineshop.services.failures import BURST, MAX_ADDRESSES, REFILL_SECONDS, FailedKeys

HERE, THERE = "192.0.2.1", "192.0.2.2"


def guessed(failed: FailedKeys, address: str = HERE, number: int = BURST, now: float = 0.0) -> None:
    for key in range(number):
        failed.check(address, f"guess-{key}", now)
        failed.failed(address, f"guess-{key}", now)


def test_so_many_guesses_and_then_one_at_a_time() -> None:
    failed = FailedKeys()
    guessed(failed)

    with pytest.raises(TooManyFailures) as refused:
        failed.check(HERE, "one-more", 0.0)

    assert status_of(refused.value) == (429, "rate_limit_error")
    assert refused.value.retry_after_seconds is not None
    failed.check(HERE, "one-more", refused.value.retry_after_seconds)
    failed.failed(HERE, "one-more", REFILL_SECONDS)
    with pytest.raises(TooManyFailures):
        failed.check(HERE, "and-another", REFILL_SECONDS)


def test_other_addresses_are_not_slowed_down() -> None:
    failed = FailedKeys()
    guessed(failed)

    failed.check(THERE, "a-key", 0.0)


def test_the_same_wrong_key_again_and_again_is_no_guessing() -> None:
    failed = FailedKeys()
    for _ in range(10 * BURST):
        failed.check(HERE, "an-old-key", 0.0)
        failed.failed(HERE, "an-old-key", 0.0)

    failed.check(HERE, "another", 0.0)


def test_a_key_that_was_good_is_let_in_behind_a_bad_address_until_it_is_bad_itself() -> None:
    failed = FailedKeys()
    failed.proved("good")
    guessed(failed)

    failed.check(HERE, "good", 0.0)
    failed.failed(HERE, "good", 0.0)
    failed.check(HERE, "good", 0.0)  # it is known here, so that it guesses nothing
    with pytest.raises(TooManyFailures):
        failed.check(HERE, "unknown", 0.0)


def test_addresses_of_one_ipv6_network_are_one() -> None:
    failed = FailedKeys()
    guessed(failed, "2001:db8::1")

    with pytest.raises(TooManyFailures):
        failed.check("2001:db8::ffff:2", "another", 0.0)
    failed.check("2001:db8:0:1::1", "another", 0.0)


def test_what_is_remembered_is_bounded() -> None:
    failed = FailedKeys()
    for number in range(MAX_ADDRESSES + 10):
        failed.failed(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}", "guess", 0.0)

    assert len(failed._addresses) == MAX_ADDRESSES


def test_a_clock_that_is_set_back_gives_nothing_away() -> None:
    failed = FailedKeys()
    guessed(failed, now=1000.0)

    with pytest.raises(TooManyFailures):
        failed.check(HERE, "another", 0.0)
