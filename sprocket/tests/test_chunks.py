"""Chunks on their way: batches, what could not be sent, what nobody wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any

import pytest

import sprocket
from sprocket import chunks
from sprocket.chunks import Batch, Chunks
from sprocket.errors import OutputError
from sprocket.generators import drain, drain_async
from sprocket.job import Job
from sprocket.testing import run_job


def test_chunks_are_numbered_and_what_was_not_sent_goes_first() -> None:
    given = Chunks()
    given.add(["1", "2"])
    batch = given.take()
    assert batch == Batch(0, ["1", "2"])
    assert batch.encode() == '{"first":0,"chunks":[1,2]}'
    given.add(["3"])
    given.put_back(batch)
    assert given.take() == Batch(0, ["1", "2", "3"])
    given.add(["4"])
    assert given.take() == Batch(3, ["4"])
    assert not given
    assert given.take() == Batch(4, [])


def test_a_batch_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "BATCH_LIMIT_CHARS", 10)
    given = Chunks()
    given.add(['"12345"', '"12345"', '"a very large chunk"', "1"])
    assert [given.take().texts for _ in range(3)] == [['"12345"', '"12345"'], ['"a very large chunk"'], ["1"]]
    assert given.size_chars == 0


def test_what_nobody_wants_is_thrown_away() -> None:
    given = Chunks()
    given.add(["1"])
    given.refuse()
    given.add(["2"])
    assert not given


def test_what_a_generator_changes_afterwards_was_given_as_it_was() -> None:
    def predict() -> Generator[dict[str, int], None, None]:
        state = {"n": 0}
        for _ in range(2):
            state["n"] += 1
            yield state

    assert drain(Job("a", {}), predict()) == sprocket.outputs.Encoded(('{"chunks":[{"n":1},{"n":2}]}',))


def test_a_cancel_closes_the_generator_where_it_is() -> None:
    seen: list[str] = []

    def predict() -> Generator[int, None, None]:
        try:
            yield 1
            job.cancel()
            yield 2
            seen.append("went on")
        finally:
            seen.append("closed")

    job = Job("a", {})
    assert drain(job, predict()) is None
    assert (seen, job.cancel_seen) == (["closed"], True)


async def test_an_error_in_a_chunk_closes_the_generator() -> None:
    seen: list[str] = []

    async def predict() -> AsyncGenerator[float, None]:
        try:
            yield 1.0
            yield float("nan")
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    with pytest.raises(OutputError, match="a chunk is nan; JSON has no NaN"):
        await drain_async(Job("a", {}), predict())
    assert seen == ["closed"]


@dataclass
class Word:
    text: str


class Words(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> Any:
        for word in args["text"].split():
            yield Word(word)


def test_a_unit_test_gets_all_chunks() -> None:
    assert run_job(Words, {"text": "to be"}) == {"chunks": [{"text": "to"}, {"text": "be"}]}
