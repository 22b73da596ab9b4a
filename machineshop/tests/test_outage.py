"""While the database is away callers are told at once, and somebody else finds out when it is back."""

import threading
from collections.abc import Iterator

import pytest

from factory import eventually
from machineshop.errors import StoreUnavailable
from machineshop.store.outage import Outage


class Probed:
    """A database that is away until it is there."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.tries = 0

    def reach(self) -> None:
        self.tries += 1
        if not self.there.is_set():
            raise OSError("still away")


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Probed:
    monkeypatch.setattr("machineshop.store.outage.PAUSE_SECONDS", 0.01)
    return Probed()


@pytest.fixture
def outage(probed: Probed) -> Iterator[Outage]:
    outage = Outage(probed.reach)
    yield outage
    outage.close()


def is_over(outage: Outage) -> bool:
    try:
        outage.check()
    except StoreUnavailable:
        return False
    return True


async def test_everybody_is_refused_until_it_is_reached_again(outage: Outage, probed: Probed) -> None:
    outage.check()
    assert outage.failed(StoreUnavailable("It is away."))
    assert not outage.failed(StoreUnavailable("It is away, still."))
    await eventually(lambda: probed.tries > 3)
    with pytest.raises(StoreUnavailable, match=r"It is away\."):
        outage.check()
    probed.there.set()
    await eventually(lambda: is_over(outage))
    assert outage.failed(StoreUnavailable("Again.")), "a new one"


async def test_whatever_works_ends_it(outage: Outage, probed: Probed) -> None:
    outage.failed(StoreUnavailable("It is away."))
    outage.over()
    outage.check()


def test_nobody_tries_any_longer_after_the_end(outage: Outage, probed: Probed) -> None:
    outage.failed(StoreUnavailable("It is away."))
    outage.close()
    tries = probed.tries
    assert not outage.failed(StoreUnavailable("It is away."))
    assert probed.tries == tries
