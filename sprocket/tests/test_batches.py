"""Jobs that are predicted together, over HTTP and from the queue."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_process import Launcher, WorkerProcess

import sprocket
from sprocket.errors import ConfigError, LoadError
from sprocket.model import Model
from sprocket.testing import run_job

SUMS = "batching:Sums"


async def post(worker: WorkerProcess, **payload: Any) -> tuple[int, Any]:
    status, body = await worker.post("/generate", json.dumps(payload).encode())
    return status, json.loads(body)


@pytest.mark.parametrize("process", ["", "1"], ids=["thread", "process"])
async def test_a_full_batch_is_predicted_at_once_and_each_gets_its_own_result(
    launch: Launcher, platform: FakePlatform, process: str
) -> None:
    await launch(platform, SUMS, SPROCKET_PROCESS=process)
    jobs = await platform.submit_many([{"n": n} for n in range(8)])
    for n, job in enumerate(jobs):
        await platform.finished(job)
        assert job.outputs == {"n": n, "together": 4}
        assert job.info["batch"] == 4


async def test_a_batch_fails_as_one_unless_it_says_of_whom(launch: Launcher, platform: FakePlatform) -> None:
    await launch(platform, SUMS)
    texts = {}
    for do in ("raise", "short", "text", "odd"):
        jobs = await platform.submit_many([{"do": do}, {}, {}, {}])
        for job in jobs:
            await platform.finished(job)
        texts[do] = [job.info.get("error") for job in jobs]
    assert texts == {
        "raise": ["ValueError: the batch is bad"] * 4,
        "short": ["OutputError: predict_batch returned 1 results for 4 inputs"] * 4,
        "text": ["OutputError: predict_batch returned str; it must return a list, a result per input"] * 4,
        "odd": ["ValueError: odd", None, None, None],
    }


async def test_an_exit_in_a_batch_ends_the_process(launch: Launcher, platform: FakePlatform) -> None:
    worker = await launch(platform, SUMS)
    await platform.submit_many([{"do": "exit"}, {}, {}, {}])
    assert await worker.exit_code() == 3


async def test_typed_inputs_over_http_come_together_and_those_that_do_not_fit_alone(launch: Launcher) -> None:
    worker = await launch(None, "batching:Typed")
    await worker.ready()
    answers = await asyncio.gather(post(worker, n="1"), post(worker, n="many"))
    assert answers[0] == (200, {"twice": 2})
    assert (answers[1][0], answers[1][1]["error"]["param"]) == (422, "n")
    assert "batch of [1]" in worker.stdout
    document = json.loads((await worker.get("/openapi.json"))[1])
    body = document["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["title"] == "Item"


async def test_a_cancelled_job_is_left_out_of_its_batch(
    launch: Launcher, platform: FakePlatform, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    worker = await launch(platform, "batching:Patient")
    first, second = await platform.submit_many([{"n": 1, "gate": str(gate)}, {"n": 2}])
    await worker.says("batch of [1, 2]")
    third, fourth, fifth = await platform.submit_many([{"n": 3}, {"n": 4}, {"n": 5}])
    third.cancel_requested = True
    await platform.finished(third)
    assert third.status == "canceled"
    gate.touch()
    for job in (first, second, fourth, fifth):
        assert (await platform.finished(job)).status == "done"
    await worker.says("batch of [4, 5]")


def test_a_unit_test_predicts_a_batch_of_one() -> None:
    class Double(sprocket.Sprocket):
        def predict_batch(self, batch: list[dict[str, int]]) -> list[dict[str, int]]:
            return [{"n": args["n"] * 2} for args in batch]

    assert run_job(Double, {"n": 2}) == {"n": 4}


def test_what_cannot_be_batched_is_told_at_once() -> None:
    class Base(sprocket.Sprocket):
        def predict_batch(self, batch: list[Any]) -> Any: ...

    class Both(Base):
        def predict(self, args: dict[str, Any]) -> Any: ...

    class NoSize(Base):
        batch_size = 0

    class NoTime(Base):
        batch_wait_seconds = float("inf")

    class Streams(sprocket.Sprocket):
        def predict_batch(self, batch: list[Any]) -> Any:
            yield {}

    class NoList(sprocket.Sprocket):
        def predict_batch(self, batch: dict[str, Any]) -> Any: ...

    class Words(sprocket.Sprocket):
        def predict_batch(self, batch: list[str]) -> Any: ...

    class Two(sprocket.Sprocket):
        def predict_batch(self, batch: list[Any], more: int) -> Any: ...

    with pytest.raises(LoadError, match="has both predict and predict_batch"):
        Model(Both)
    for cls, text in [
        (NoSize, "batch_size must be a whole number"),
        (NoTime, "batch_wait_seconds must be a number"),
        (Streams, "only predict can stream"),
        (NoList, "its parameter is a list of inputs"),
        (Words, "annotate the list's items with"),
        (Two, "must take one parameter"),
    ]:
        with pytest.raises(ConfigError, match=text):
            Model(cls)
    assert Model(Base).concurrency == 8
