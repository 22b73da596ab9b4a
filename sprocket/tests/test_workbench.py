"""Whose turn it is, and jobs that begin before their coroutine gets a turn of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import sprocket
from sprocket.config import Config, PlatformConfig
from sprocket.consumer import Consumer
from sprocket.engine import OnOutcome, SyncThread
from sprocket.job import Job
from sprocket.metrics import Metrics
from sprocket.model import Model
from sprocket.outcome import Done, Failed
from sprocket.platform import Claim, Platform
from sprocket.workbench import Turn, Workbench

BOUND_SECONDS = 10.0


class Gate(sprocket.Sprocket):
    """Says when predict has begun, and waits to be let through where the payload asks for that."""

    def setup(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        self.begun.set()
        if args.get("wait"):
            assert self.opened.wait(BOUND_SECONDS)
        return args


@asynccontextmanager
async def working(gate: Gate, engine_type: type[SyncThread] = SyncThread) -> AsyncIterator[Workbench]:
    bench = Workbench(Config(), engine_type(Model(gate)), None, Metrics())
    assert await bench.start() is None
    yield bench
    gate.opened.set()
    await bench.stop()
    await bench.close()


async def test_the_turn_goes_round_in_the_order_of_asking() -> None:
    turn = Turn()
    served: list[int] = []

    async def visitor(number: int) -> None:
        await turn.take()
        served.append(number)
        await asyncio.sleep(0)
        turn.give_back()

    assert turn.take_if_free()
    assert not turn.take_if_free()
    visitors = [asyncio.create_task(visitor(number)) for number in range(4)]
    await asyncio.sleep(0)
    visitors[1].cancel()
    turn.give_back()
    assert not turn.take_if_free()
    await asyncio.gather(*visitors, return_exceptions=True)
    assert served == [0, 2, 3]
    assert not turn.taken


async def test_who_gives_up_in_the_moment_of_getting_the_turn_passes_it_on() -> None:
    turn = Turn()
    assert turn.take_if_free()
    waiting = asyncio.create_task(turn.take())
    await asyncio.sleep(0)
    turn.give_back()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not turn.taken


async def test_a_job_can_begin_without_a_turn_of_the_event_loop() -> None:
    gate = Gate()
    async with working(gate) as bench:
        job = Job("a", {"n": 1})
        bench.begin(job)
        assert gate.begun.wait(BOUND_SECONDS)
        assert bench.busy
        assert await bench.work(job) == Done({"n": "1"})
        assert not bench.busy


async def test_a_job_behind_another_or_with_files_does_not_begin_at_once() -> None:
    gate = Gate()
    async with working(gate) as bench:
        with_file = Job("file", {"file": "https://127.0.0.1:1/x"})
        bench.begin(with_file)
        assert not bench.has_begun(with_file)
        first, second = Job("a", {"wait": True}), Job("b", {"n": 2})
        bench.begin(first)
        bench.begin(second)
        assert (bench.has_begun(first), bench.has_begun(second)) == (True, False)
        works = [asyncio.create_task(bench.work(job)) for job in (second, first)]
        await asyncio.sleep(0)
        gate.opened.set()
        assert await asyncio.gather(*works) == [Done({"n": "2"}), Done({"wait": "true"})]


async def test_an_engine_that_takes_no_job_fails_it_and_the_next_one_is_not_stuck() -> None:
    class Refusing(SyncThread):
        refuses = True

        def predict(self, job: Job, on_outcome: OnOutcome) -> None:
            if self.refuses:
                raise RuntimeError("the event loop is closed")
            super().predict(job, on_outcome)

    async with working(Gate(), Refusing) as bench:
        job = Job("a", {})
        bench.begin(job)
        assert not bench.has_begun(job)
        outcome = await bench.work(job)
        assert isinstance(outcome, Failed)
        assert "the event loop is closed" in outcome.error
        Refusing.refuses = False
        assert await bench.work(Job("b", {"n": 1})) == Done({"n": "1"})


class OneClaim(Platform):
    """Hands out one claim, and calls `meanwhile` before or after it is taken up, while its coroutine still sleeps."""

    def __init__(self, meanwhile: Callable[[], None], *, before: bool) -> None:
        super().__init__(PlatformConfig("http://127.0.0.1:1", "k", "hello", "host"))
        self.meanwhile, self.before = meanwhile, before
        self.statuses: list[str] = []

    async def claim(self, idle_seconds: float, take: Callable[[Claim], Any]) -> Any:
        self.claim_arriving = True
        if self.before:
            self.meanwhile()
        taken = take(Claim("id", {"n": 1}, 0, {}, 1, "token"))
        if not self.before:
            self.meanwhile()
        await asyncio.sleep(0)
        self.claim_arriving = False
        return taken

    async def update(self, request_id: str, token: str | None, status: str, **fields: str) -> bool:
        self.statuses.append(status)
        return False


@pytest.mark.parametrize(("before", "statuses"), [(True, ["pending"]), (False, ["done"])])
async def test_a_drain_hands_back_a_claim_unless_the_model_has_begun_with_it(before: bool, statuses: list[str]) -> None:
    gate = Gate()
    async with working(gate) as bench:
        platform = OneClaim(lambda: consumer.drain(), before=before)  # noqa: PLW0108 - made in the next line
        consumer = Consumer(platform, bench, Metrics())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(consumer.start(), BOUND_SECONDS)
        assert platform.statuses == statuses
        assert gate.begun.is_set() is not before
        assert not bench.busy
        await platform.close()
