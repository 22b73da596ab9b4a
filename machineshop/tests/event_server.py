"""The stream of events behind a server of its own, and a reader of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from factory import eventually
from machineshop.api.events import Streams
from machineshop.services.feed import Feed
from machineshop.states import TERMINAL_STATES

TERMINAL = {str(state) for state in TERMINAL_STATES}
PATH = "/v1/queue/events"


class Event:
    """One event as a reader gets it."""

    def __init__(self, lines: list[str]) -> None:
        fields = dict(line.split(": ", 1) for line in lines)
        self.id = fields.get("id", "")
        self.name = fields["event"]
        self.job: dict[str, Any] = json.loads(fields["data"])

    @property
    def status(self) -> str:
        return str(self.job["status"])


class Reader:
    """Reads an answer event by event; `comments` counts what is none."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.comments: list[str] = []
        self.last_id = ""

    async def next(self, seconds: float = 10.0) -> Event | None:
        """The next event; None where the stream has ended."""
        lines: list[str] = []
        async with asyncio.timeout(seconds):
            while line := await self._answer.content.readline():
                text = line.decode().rstrip("\n")
                if text.startswith(("data: ", "id: ", "event: ")):
                    lines.append(text)
                elif text:
                    self.comments.append(text)
                elif lines:
                    event = Event(lines)
                    self.last_id = event.id or self.last_id
                    return event
        return None

    async def until(self, status: str) -> Event:
        """The first event with this status."""
        while event := await self.next():
            if event.status == status:
                return event
        raise AssertionError(f"the stream ended before a job was {status}")


class Server:
    """The events' route on a port, as the platform serves it."""

    def __init__(self, session: aiohttp.ClientSession, port: int, feed: Feed, streams: Streams, model: str) -> None:
        self.session, self.port, self.feed, self.streams, self.model = session, port, feed, streams, model

    @property
    def followers(self) -> set[str]:
        return self.feed.changes.followed_queues()

    @asynccontextmanager
    async def stream(self, last_id: str = "", **params: str) -> AsyncIterator[Reader]:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with self.session.get(PATH, params={"model": self.model, **params}, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            yield Reader(answer)

    async def following(self, number: int = 1) -> None:
        """Wait until so many streams have begun to follow: what changes from then on they are told."""
        await eventually(lambda: self.streams.number == number and len(self.followers) > 0)
