"""Log lines of several replicas as one stream in order of time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from operator import attrgetter

from machineshop.runtime.base import LogLine
from machineshop.runtime.engine import ReplicaLog

FOLLOW_INTERVAL_SECONDS = 0.05
"""Well under the 100 ms within which a printed line should be seen."""


async def read_merged(
    replicas: Callable[[], list[str]],
    open_log: Callable[[str], ReplicaLog],
    over: Callable[[], bool],
    *,
    tail: int | None,
    follow: bool,
) -> AsyncIterator[LogLine]:
    """What there is, oldest first, and with `follow` what is yet to come.

    Args:
        replicas: The ids of the replicas to read, asked again and again while following.
        open_log: Opens one replica's log.
        over: Whether nothing more can come.
        tail: Only so many of the lines that there are already; None for all.
        follow: Whether to wait for more.
    """
    logs = {replica_id: open_log(replica_id) for replica_id in replicas()}
    for line in await asyncio.to_thread(_last, list(logs.values()), tail):
        yield line
    while follow:
        ended = over()
        for replica_id in replicas():
            if replica_id not in logs:
                logs[replica_id] = open_log(replica_id)
        lines = sorted((line for log in logs.values() for line in log.read_new()), key=attrgetter("at"))
        for line in lines:
            yield line
        if ended and not lines:
            return
        if not lines:
            await asyncio.sleep(FOLLOW_INTERVAL_SECONDS)


def _last(logs: list[ReplicaLog], tail: int | None) -> list[LogLine]:
    lines = sorted((line for log in logs for line in log.read_last(tail)), key=attrgetter("at"))
    return lines if tail is None else lines[len(lines) - min(tail, len(lines)) :]
