"""Jobs as they go out: each as the platform takes it, many in one request. Pure, given a clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jig.run.job_file import FileJob
from jig.run.job_lines import encoded

PORTION_JOBS = 1000  # the most that the platform takes
PORTION_BYTES = 8 * 1024 * 1024  # it takes twice as much, but gets no faster by it
PORTION_SECONDS = 1.0  # files that are uploaded take time: what is ready goes out


@dataclass(frozen=True)
class Item:
    """A job ready to go out.

    Args:
        line: of the file, counted from 1.
        body: as JSON.
    """

    line: int
    body: bytes


def item_of(job: FileJob, payload: Mapping[str, Any], *, defaults: Mapping[str, Any], run_id: str) -> Item:
    """A job as the platform takes it.

    Args:
        job: of the file.
        payload: its payload, files replaced by their URLs.
        defaults: `model`, and fields for lines that do not set them.
        run_id: makes the idempotency key of a line the same in two runs, or not.
    """
    set_here = {key: value for key, value in job.fields.items() if value is not None}
    body = {**defaults, "idempotency_key": idempotency_key(job, run_id), **set_here, "payload": payload}
    return Item(job.number, encoded(body))


def idempotency_key(job: FileJob, run_id: str) -> str:
    """The same for the same line in two runs of one ID: it becomes one job, however often it is sent."""
    line = "\n".join((run_id, str(job.number), job.digest))
    return f"jig-{hashlib.sha256(line.encode()).hexdigest()[:40]}"


def portions(items: Iterable[Item], clock: Callable[[], float]) -> Iterator[list[Item]]:
    """The items in portions that one request takes, none of them empty."""
    portion: list[Item] = []
    count_bytes, started_at = 0, 0.0
    for item in items:
        if portion and count_bytes + len(item.body) > PORTION_BYTES:
            yield portion
            portion, count_bytes = [], 0
        if not portion:
            started_at = clock()
        portion.append(item)
        count_bytes += len(item.body)
        if len(portion) == PORTION_JOBS or clock() - started_at > PORTION_SECONDS:
            yield portion
            portion, count_bytes = [], 0
    if portion:
        yield portion


def request_body(items: Iterable[Item]) -> bytes:
    """The array of several jobs."""
    return b"[" + b",".join(item.body for item in items) + b"]"
