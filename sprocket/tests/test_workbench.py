"""Jobs that begin before their coroutine gets a turn of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

import sprocket
from sprocket.config import Config, PlatformConfig
from sprocket.consumer import Consumer
from sprocket.engine import OnOutcome, SyncThreads
from sprocket.files import Files
from sprocket.job import Job
from sprocket.messages import Claim, Update, Verdict
from sprocket.metrics import Metrics
from sprocket.model import Model
from sprocket.outcome import Done, Failed
from sprocket.outputs import encode_outputs
from sprocket.platform import Platform, Take
from sprocket.predict import Patience
from sprocket.workbench import Workbench

BOUND_SECONDS = 60.0


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
async def working(gate: Gate, engine_type: type[SyncThreads] = SyncThreads) -> AsyncIterator[Workbench]:
    model = Model(gate)
    files = Files(Config(), None, model.inputs)
    bench = Workbench(engine_type(model), Patience(None, 10.0), files, Metrics())
    assert await bench.start() is None
    yield bench
    gate.opened.set()
    await bench.stop()
    await files.close()


async def test_a_job_can_begin_without_a_turn_of_the_event_loop() -> None:
    gate = Gate()
    async with working(gate) as bench:
        job = Job("a", {"n": 1})
        bench.begin(job)
        assert gate.begun.wait(BOUND_SECONDS)
        assert bench.slots.free == 0
        assert await bench.work(job) == Done(encode_outputs({"n": 1}))
        assert bench.slots.free == 1


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
        assert await asyncio.gather(*works) == [Done(encode_outputs({"n": 2})), Done(encode_outputs({"wait": True}))]


async def test_an_engine_that_takes_no_job_fails_it_and_the_next_one_is_not_stuck() -> None:
    class Refusing(SyncThreads):
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
        assert await bench.work(Job("b", {"n": 1})) == Done(encode_outputs({"n": 1}))


class OneClaim(Platform):
    """Hands out one claim, and calls `meanwhile` before or after it is taken up, while its coroutine still sleeps."""

    def __init__(self, meanwhile: Callable[[], None], *, before: bool) -> None:
        super().__init__(PlatformConfig("http://127.0.0.1:1", "k", "hello", "host"))
        self.meanwhile, self.before = meanwhile, before
        self.statuses: list[str] = []

    async def claim(self, max_jobs: int, idle_seconds: float, take: Take) -> int:
        self.claim_arriving = True
        if self.before:
            self.meanwhile()
        take([Claim("id", {"n": 1}, 0, {}, 1, "token")])
        if not self.before:
            self.meanwhile()
        await asyncio.sleep(0)
        self.claim_arriving = False
        return 1

    async def exchange(self, updates: Sequence[Update], max_jobs: int, take: Take) -> list[Verdict]:
        assert max_jobs == 0
        self.statuses += [update.status for update in updates]
        return [False for _ in updates]


@pytest.mark.parametrize(("before", "statuses"), [(True, ["pending"]), (False, ["done"])])
async def test_a_drain_hands_back_a_claim_unless_the_model_has_begun_with_it(before: bool, statuses: list[str]) -> None:
    gate = Gate()
    async with working(gate) as bench:
        platform = OneClaim(lambda: consumer.drain(), before=before)  # noqa: PLW0108 - made in the next line
        consumer = Consumer(platform, bench, Metrics())
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(consumer.start(), BOUND_SECONDS)
        await asyncio.wait_for(consumer.finished(), BOUND_SECONDS)
        assert platform.statuses == statuses
        assert gate.begun.is_set() is not before
        assert bench.slots.free == 1
        await platform.close()
