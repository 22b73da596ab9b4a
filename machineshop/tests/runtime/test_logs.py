"""Logs as a stream: read bit by bit, in a thread, and no further than somebody takes it."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from machineshop.runtime.base import LogLine
from machineshop.runtime.logs import BATCH_LINES, LogLines, in_batches, read_merged
from machineshop.runtime.replica_log import FileLog
from machineshop.runtime.shim import Log
from runtime.harness import eventually

CHATTER = """
import sys
from machineshop.runtime.shim import Log
log = Log(sys.argv[1], 5 * 1024**2)
while True:
    log.take(b"y\\n" * 32768)
"""


@pytest.fixture
async def chatty(tmp_path: Path) -> AsyncIterator[Path]:
    """The folder of a replica that prints as much as it can."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CHATTER, str(tmp_path))

    async def prints() -> bool:
        return (tmp_path / "log.1").exists()

    try:
        await eventually(prints)
        yield tmp_path
    finally:
        process.kill()
        await process.wait()


class CountingLog(FileLog):
    """Counts how often it was read."""

    reads = 0

    def read_new(self) -> list[LogLine]:
        self.reads += 1
        return super().read_new()


def followed(log: FileLog, tail: int | None = 0) -> LogLines:
    return read_merged(lambda: ["r"], lambda _: log, lambda: False, tail=tail, follow=True)


async def longest_turn(stop: asyncio.Event) -> float:
    """The longest time that the loop left others waiting, in seconds of this process: others may take the machine's."""
    longest = 0.0
    while not stop.is_set():
        began = time.process_time()
        await asyncio.sleep(0.001)
        longest = max(longest, time.process_time() - began)
    return longest


async def test_following_a_replica_that_prints_a_lot_leaves_the_loop_to_others(chatty: Path) -> None:
    stop = asyncio.Event()
    watching = asyncio.create_task(longest_turn(stop))
    lines = 0
    async with asyncio.timeout(60):
        async for batch in in_batches(followed(FileLog(chatty, "r"))):
            assert len(batch) <= BATCH_LINES + 1
            lines += len(batch)
            if lines > 100_000:
                break
    stop.set()
    assert await watching < 0.25


async def test_nothing_is_read_before_somebody_takes_it(chatty: Path) -> None:
    log = CountingLog(chatty, "r")
    batches = in_batches(followed(log))
    for _ in range(3):
        await anext(batches)
        reads = log.reads
        await asyncio.sleep(0.1)
        assert log.reads == reads


async def test_what_is_there_comes_in_batches_of_bounded_size(tmp_path: Path) -> None:
    with closing(Log(str(tmp_path), 10 * 2**20)) as written:
        written.take(b"short\n" * 2500 + (b"x" * 16_000 + b"\n") * 100)
    lines = read_merged(lambda: ["r"], lambda _: FileLog(tmp_path, "r"), lambda: True, tail=None, follow=False)
    batches = [batch async for batch in in_batches(lines)]
    assert [len(batch) for batch in batches[:2]] == [BATCH_LINES + 1] * 2
    assert max(sum(len(line.text) for line in batch) for batch in batches) < 300_000
    assert sum(len(batch) for batch in batches) == 2600


async def test_lines_that_come_one_by_one_are_passed_on_at_once() -> None:
    async def slowly() -> AsyncIterator[LogLine]:
        for number in range(3):
            await asyncio.sleep(0)
            yield LogLine(at=number, replica_id="r", text=str(number))

    assert [[line.text for line in batch] async for batch in in_batches(slowly())] == [["0"], ["1"], ["2"]]
