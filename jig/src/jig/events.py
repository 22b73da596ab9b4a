"""The platform's server-sent events: read off the wire, over as many connections as it takes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jig.answers import pause_seconds
from jig.client import Client
from jig.errors import PlatformError

EVENTS_PATH = "/v1/queue/events"
JOB_EVENT, CHUNKS_EVENT, END_EVENT = "job", "chunks", "end"
SILENCE_SECONDS = 50.0  # the platform says something every 15 s: three of those missed, and the connection is dead
# Pauses double from 0.2 s to 10 s: a platform that is away for half a minute is waited for.
TRIES = 10
STEADY_SECONDS = 5.0  # a connection that has lasted so long starts the count of tries again
SERVER_TROUBLE = 500


@dataclass(frozen=True)
class Event:
    """One event.

    Args:
        id: what to ask for the events after this one with; empty where the platform gave none.
        name: its kind.
        data: what it says.
    """

    id: str
    name: str
    data: str


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a stream, as the standard for server-sent events has it; one that was cut off is none."""
    last_id, name, data = "", "", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Event(last_id, name or "message", "\n".join(data))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id":
            last_id = value


class JobEvents:
    """The changes of a queue's jobs, or of one job, as they happen.

    A connection that breaks is made again, and goes on after the last event that came; how often is bounded.

    Args:
        client: the platform.
        params: which changes: `model`, and for one job `request_id`.
        note: called with a sentence when a connection has broken.
        opened: called once, when the platform has begun to tell: what changes from then on comes.
    """

    def __init__(
        self,
        client: Client,
        params: Mapping[str, object],
        note: Callable[[str], None],
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._params = params
        self._note = note
        self._opened = opened
        self._last_id = ""
        self._job: dict[str, Any] = {}
        self._chunks: list[Any] = []
        self._failures = 0
        self._is_over = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The jobs as they are after each change, until there is nothing left to follow.

        One job that streams comes again with each of its `chunks`, all there are so far.

        Raises:
            PlatformError: the platform refuses, or has been away for too long.
        """
        while True:
            try:
                yield from self._connection()
                if self._is_over:
                    return
                error = PlatformError("The platform ended the stream of events.")
            except PlatformError as failed:
                if not self._may_go_on(failed):
                    raise
                error = failed
            self._failures += 1
            if self._failures >= TRIES:
                raise error
            if self._failures > 1 or error.status is not None:
                self._note(f"{error.message} Trying again.")
            time.sleep(pause_seconds(self._failures, None, random.random()))  # noqa: S311  jitter is no secret

    def _connection(self) -> Iterator[dict[str, Any]]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._last_id} if self._last_id else {})
        started_at = time.monotonic()
        lines = self._client.lines(EVENTS_PATH, self._params, silence_seconds=SILENCE_SECONDS, headers=headers)
        for event in read_events(self._announced(lines)):
            is_new = event.id != self._last_id
            self._last_id = event.id or self._last_id
            if is_new or time.monotonic() - started_at > STEADY_SECONDS:
                self._failures = 0
            if event.name == END_EVENT:
                self._is_over = True
                return
            if event.name == JOB_EVENT:
                self._job = parsed(event.data)
                yield self._job
            if event.name == CHUNKS_EVENT and self._job:
                self._chunks = with_chunks(self._chunks, event.data)
                yield {**self._job, "chunks": self._chunks}

    def _announced(self, lines: Iterable[str]) -> Iterator[str]:
        for line in lines:
            self._opened()
            self._opened = lambda: None
            yield line

    def _may_go_on(self, error: PlatformError) -> bool:
        """True for what passes: a broken connection, or trouble inside the platform."""
        is_passing = error.status is None or error.status == 429 or error.status >= SERVER_TROUBLE
        # Nobody has ever answered: say so at once.
        return is_passing and self._client.has_answered


def with_chunks(known: list[Any], data: str) -> list[Any]:
    """What a job has given so far, by an event that tells of more; an attempt begins with its first one anew.

    Raises:
        PlatformError: it is no such event.
    """
    try:
        told = json.loads(data)
        return [*known[: told["first"]], *told["chunks"]]
    except (ValueError, KeyError, TypeError):
        raise PlatformError(f"The platform sent an event that holds no chunks: {data[:80]}", status=200) from None


def parsed(data: str) -> dict[str, Any]:
    """The job of an event.

    Raises:
        PlatformError: it is none.
    """
    try:
        job = json.loads(data)
    except ValueError:
        job = None
    if not isinstance(job, dict) or "status" not in job or "request_id" not in job:
        raise PlatformError(f"The platform sent an event that holds no job: {data[:80]}", status=200)
    return job
