"""Predicts that stream, over HTTP and from the queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_process import Launcher, WorkerProcess

BOUND_SECONDS = 60.0

Event = tuple[str, Any]


class Events:
    """Reads server-sent events."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.comments = 0

    async def next(self) -> Event | None:
        """The next event's name and data; None at the end."""
        name, data = "", ""
        async with asyncio.timeout(BOUND_SECONDS):
            while line := (await self.answer.content.readline()).decode():
                field, _, value = line.rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = value
                elif line == "\n" and data:
                    return name, json.loads(data)
                else:
                    self.comments += line.startswith(":")
        return None

    async def all(self) -> list[Event]:
        found = []
        while event := await self.next():
            found.append(event)
        return found


@asynccontextmanager
async def streaming(worker: WorkerProcess, payload: dict[str, Any]) -> AsyncIterator[Events]:
    url = f"http://127.0.0.1:{await worker.port()}/generate"
    async with (
        aiohttp.ClientSession(headers={"Accept": "text/event-stream"}) as session,
        session.post(url, json=payload) as answer,
    ):
        yield Events(answer)


@pytest.fixture(params=["", "1"], ids=["thread", "process"])
def process(request: pytest.FixtureRequest) -> str:
    """Whether the model is to have a process of its own."""
    return str(request.param)


async def test_chunks_come_as_events_while_predict_runs(launch: Launcher, tmp_path: Path, process: str) -> None:
    worker = await launch(None, "streams:Counting", SPROCKET_PROCESS=process)
    await worker.ready()
    gate = tmp_path / "gate"
    async with streaming(worker, {"chunks": 2, "info": True, "gate": str(gate)}) as events:
        assert events.answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        seen: list[Event | None] = []
        while {"n": 1} not in (chunks := [data for name, data in filter(None, seen) if name == ""]) or (
            ("info", {"at": 1}) not in seen
        ):
            seen.append(await events.next())
        assert chunks == [{"n": 0}, {"n": 1}]
        gate.touch()
        assert await events.all() == [("", {"n": "after the gate"}), ("done", {})]


async def test_without_events_all_chunks_come_together(launch: Launcher) -> None:
    worker = await launch(None, "streams:Counting")
    await worker.ready()
    assert await worker.post("/generate", b'{"chunks": 2}') == (200, '{"chunks":[{"n":0},{"n":1}]}')
    assert await worker.post("/generate", b'{"chunks": 2, "outputs": {"sum": 1}}') == (200, '{"sum":1}')
    status, body = await worker.post("/generate", b'{"chunks": 1, "fail": true}')
    assert (status, json.loads(body)["error"]["message"]) == (500, "ValueError: in the middle")
    status, body = await worker.post("/generate", b'{"chunks": 1, "odd": true}')
    assert "OutputError: a chunk is object, which is not JSON" in json.loads(body)["error"]["message"]
    assert "text/event-stream" in (await worker.get("/openapi.json"))[1]


async def test_the_end_says_how_predict_ended(launch: Launcher) -> None:
    worker = await launch(None, "streams:Counting")
    await worker.ready()
    async with streaming(worker, {"chunks": 1, "outputs": {"sum": 0}}) as events:
        assert await events.all() == [("", {"n": 0}), ("done", {"sum": 0})]
    async with streaming(worker, {"chunks": 1, "fail": True}) as events:
        assert events.answer.status == 200
        (_, chunk), (name, last) = await events.all()
        assert (chunk, name) == ({"n": 0}, "error")
        assert last["error"]["message"] == "ValueError: in the middle"
    async with streaming(worker, {"chunks": 0, "fail": True}) as events:  # nothing was told yet: the status can say it
        assert events.answer.status == 500
        assert (await events.answer.json())["error"]["code"] == "predict_failed"


async def test_a_predict_that_does_not_stream_ends_in_one_event(launch: Launcher) -> None:
    worker = await launch(None, "zoo:Zoo")
    await worker.ready()
    async with streaming(worker, {"a": 1}) as events:
        assert await events.all() == [("done", {"a": 1})]


async def test_an_asynchronous_generator_with_typed_inputs(launch: Launcher, process: str) -> None:
    worker = await launch(None, "streams:AsyncCounting", SPROCKET_PROCESS=process)
    await worker.ready()
    async with streaming(worker, {"prompt": "p", "times": "2"}) as events:
        assert await events.all() == [("", "p0"), ("", "p1"), ("done", {})]
    async with streaming(worker, {"times": 2}) as events:
        assert events.answer.status == 422
    assert await worker.post("/generate", b'{"prompt": "p"}') == (200, '{"chunks":["p0","p1","p2"]}')


@pytest.mark.parametrize(
    ("target", "payload", "ending"),
    [
        ("streams:Endless", {}, "generator closed"),
        # By CancelledError at its await, as a rule; by GeneratorExit where it stands at its yield in that moment.
        ("streams:AsyncCounting", {"prompt": "p", "forever": True}, "ended by "),
    ],
)
async def test_a_client_that_hangs_up_ends_the_generator(
    launch: Launcher, process: str, target: str, payload: dict[str, Any], ending: str
) -> None:
    worker = await launch(None, target, SPROCKET_PROCESS=process)
    await worker.ready()
    async with streaming(worker, payload) as events:
        assert await events.next()
    await worker.says(ending, BOUND_SECONDS)


async def test_a_generator_that_waits_for_nothing_lets_another_in(launch: Launcher) -> None:
    worker = await launch(None, "streams:Busy")
    await worker.ready()
    async with streaming(worker, {"chunks": 10**9}) as events:
        await events.next()
        assert await worker.post("/generate", b'{"chunks": 2}') == (200, '{"chunks":[0,1]}')


async def test_a_client_that_is_slower_than_the_model_is_cut_off(launch: Launcher) -> None:
    worker = await launch(None, "streams:Endless")
    await worker.ready()
    async with streaming(worker, {"size": 4 * 1024**2, "pause": 0}):
        await worker.says("slower than the model", BOUND_SECONDS)
        await worker.says("generator closed", BOUND_SECONDS)


async def test_a_quiet_stream_says_that_it_is_alive(launch: Launcher, tmp_path: Path) -> None:
    worker = await launch(None, "streams:Impatient")
    await worker.ready()
    gate = tmp_path / "gate"
    async with streaming(worker, {"chunks": 0, "gate": str(gate)}) as events:
        async with asyncio.timeout(BOUND_SECONDS):
            assert await events.answer.content.readline() == b": keep-alive\n"
        gate.touch()
        assert await events.all() == [("", {"n": "after the gate"}), ("done", {})]


async def test_the_queue_sees_chunks_while_the_job_runs(
    launch: Launcher, platform: FakePlatform, tmp_path: Path, process: str
) -> None:
    gate = tmp_path / "gate"
    await launch(platform, "streams:Counting", SPROCKET_PROCESS=process)
    job = await platform.submit({"chunks": 2000, "gate": str(gate)})
    await platform.until(lambda: len(chunks_of(platform, job.request_id)) == 2000, BOUND_SECONDS)
    assert job.status == "running"
    gate.touch()
    await platform.finished(job, BOUND_SECONDS)
    wanted = [{"n": number} for number in range(2000)] + [{"n": "after the gate"}]
    assert job.outputs == {"chunks": wanted}
    assert chunks_of(platform, job.request_id) == wanted
    batches = [update for update in platform.updates_of(job, "running") if update.body["payload"]]
    assert len(batches) < 200  # many a message


async def test_a_cancelled_stream_ends_as_canceled(launch: Launcher, platform: FakePlatform, process: str) -> None:
    worker = await launch(platform, "streams:Endless", SPROCKET_PROCESS=process)
    job = await platform.submit({})
    await platform.until(lambda: chunks_of(platform, job.request_id), BOUND_SECONDS)
    job.cancel_requested = True
    await platform.finished(job, BOUND_SECONDS)
    assert job.status == "canceled"
    await worker.says("generator closed", BOUND_SECONDS)


def chunks_of(platform: FakePlatform, request_id: str) -> list[Any]:
    """What the job's worker has told, put together as the platform does."""
    found: list[Any] = []
    for update in platform.updates:
        payload = update.body["payload"]
        if update.body["request_id"] == request_id and update.body["status"] == "running" and payload:
            assert payload["first"] <= len(found)
            found[payload["first"] :] = payload["chunks"]
    return found
