"""Log lines of several replicas as one stream in order of time.

Place in the flow: a runtime gives the stream to whoever shows it. It is read in batches, in a thread, and only when the
batch before was taken: a replica may print far more than anyone can be sent, and the server has other things to do.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from operator import attrgetter

from machineshop.runtime.base import LogLine
from machineshop.runtime.engine import ReplicaLog

FOLLOW_INTERVAL_SECONDS = 0.05
"""Well under the 100 ms within which a printed line should be seen."""
BATCH_LINES = 1000
BATCH_CHARACTERS = 256 * 1024
"""A batch is handled in one go, in a millisecond or so."""


class LogLines(AsyncIterator[LogLine]):
    """Lines one by one, of which those that can be had without waiting may be taken together.

    Args:
        rounds: Lines as they were read, any number of them at a time.
    """

    def __init__(self, rounds: AsyncIterator[list[LogLine]]) -> None:
        self._rounds = rounds
        self._read: deque[LogLine] = deque()

    async def __anext__(self) -> LogLine:
        while not self._read:
            self._read.extend(await anext(self._rounds))
        return self._read.popleft()

    def at_hand(self) -> list[LogLine]:
        """The next lines, as many as were read already and make a batch; may be none."""
        batch: list[LogLine] = []
        characters = 0
        while self._read and len(batch) < BATCH_LINES and characters < BATCH_CHARACTERS:
            batch.append(self._read.popleft())
            characters += len(batch[-1].text)
        return batch


async def in_batches(lines: AsyncIterator[LogLine]) -> AsyncIterator[list[LogLine]]:
    """The lines, as many together as are there; the loop gets its turn between batches."""
    async for line in lines:
        yield [line, *(lines.at_hand() if isinstance(lines, LogLines) else ())]
        await asyncio.sleep(0)


def read_merged(
    replicas: Callable[[], list[str]],
    open_log: Callable[[str], ReplicaLog],
    over: Callable[[], bool],
    *,
    tail: int | None,
    follow: bool,
    since: float = 0.0,
) -> LogLines:
    """What there is, oldest first, and with `follow` what is yet to come.

    Args:
        replicas: The ids of the replicas to read, asked again and again while following.
        open_log: Opens one replica's log.
        over: Whether nothing more can come.
        tail: Only so many of the lines that there are already; None for all.
        follow: Whether to wait for more.
        since: Only those of the lines there are already that were printed from then on; seconds since the epoch.
    """
    return LogLines(_rounds(replicas, open_log, over, tail=tail, follow=follow, since=since))


async def _rounds(
    replicas: Callable[[], list[str]],
    open_log: Callable[[str], ReplicaLog],
    over: Callable[[], bool],
    *,
    tail: int | None,
    follow: bool,
    since: float,
) -> AsyncIterator[list[LogLine]]:
    logs = {replica_id: open_log(replica_id) for replica_id in replicas()}
    yield await asyncio.to_thread(_last, list(logs.values()), tail, since)
    while follow:
        ended = over()
        for replica_id in replicas():
            if replica_id not in logs:
                logs[replica_id] = open_log(replica_id)
        lines = await asyncio.to_thread(_new, list(logs.values()))
        yield lines
        if ended and not lines:
            return
        if not lines:
            await asyncio.sleep(FOLLOW_INTERVAL_SECONDS)


def _last(logs: list[ReplicaLog], tail: int | None, since: float) -> list[LogLine]:
    lines = _in_order(line for log in logs for line in log.read_last(tail) if line.at >= since)
    return lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]


def _new(logs: list[ReplicaLog]) -> list[LogLine]:
    return _in_order(line for log in logs for line in log.read_new())


def _in_order(lines: Iterable[LogLine]) -> list[LogLine]:
    return sorted(lines, key=attrgetter("at"))
