"""What replicas need is made ready once, tried again, and given up when nobody needs it any more."""

import asyncio
import time

import pytest

from machineshop.runtime.base import RevisionSpec
from machineshop.runtime.engine import PreparationFailed
from machineshop.runtime.preparation import Need, Preparations
from runtime.harness import eventually

SPEC = RevisionSpec(
    deployment_id="dep-1", deployment_name="hello", project_id="p", revision_id="r1", image="i@sha256:0"
)


class Making:
    """Something whose making goes on until it is let."""

    def __init__(self) -> None:
        self.begun = self.given_up = 0
        self.may_end = asyncio.Event()

    async def make(self) -> None:
        self.begun += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise


async def test_what_several_need_is_made_once() -> None:
    making, changes = Making(), list[None]()
    preparations = Preparations(lambda: changes.append(None))
    needs = [Need(("volume", "a"), making.make)]
    for _ in range(3):
        preparations.want(needs, SPEC, time.time())
        preparations.keep(needs)
        await asyncio.sleep(0)
    assert not preparations.are_ready(needs)
    making.may_end.set()

    async def ready() -> bool:
        return preparations.are_ready(needs)

    await eventually(ready)
    assert (making.begun, len(changes)) == (1, 1)


async def test_what_nobody_needs_any_more_is_given_up_and_may_be_wanted_again() -> None:
    making = Making()
    preparations = Preparations(lambda: None)
    needs = [Need(("volume", "a"), making.make)]
    preparations.want(needs, SPEC, time.time())
    await asyncio.sleep(0)
    preparations.keep([])

    async def given_up() -> bool:
        return making.given_up == 1

    await eventually(given_up)
    assert (preparations.failure(needs), preparations.retry_at(needs)) == (None, None)
    preparations.want(needs, SPEC, time.time())
    await asyncio.sleep(0)
    assert making.begun == 2
    await preparations.close()


@pytest.mark.parametrize(
    ("final", "reasons"),
    [
        (False, ["ErrImagePull"] * 4 + ["ImagePullBackOff"] * 2),
        (True, ["ImagePullBackOff"] * 2),
    ],
    ids=["a registry that hiccups", "a registry that says no"],
)
async def test_nobody_should_wait_after_some_tries_and_not_at_all_where_trying_mends_nothing(
    final: bool, reasons: list[str]
) -> None:
    changed, now = asyncio.Event(), 0.0

    async def make() -> None:
        raise PreparationFailed("ErrImagePull", "There is none.", final=final)

    preparations = Preparations(changed.set)
    needs = [Need(("artifact", "a"), make)]
    for reason in reasons:
        changed.clear()
        preparations.want(needs, SPEC, now)
        async with asyncio.timeout(60):
            await changed.wait()
        failure, due = preparations.failure(needs), preparations.retry_at(needs)
        assert failure is not None
        assert due is not None
        assert (failure.reason, failure.message) == (reason, "There is none.")
        now = due
    assert not preparations.are_ready(needs)
