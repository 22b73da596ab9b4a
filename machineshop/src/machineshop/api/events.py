"""Server-sent events: the changes of a queue's jobs, or of one job, as they happen.

A stream holds nothing: it is woken, reads what is new from where it was, sends that, and waits. How quickly things
change makes no difference to how often it reads, and what a slow reader has not taken is not read yet.
"""

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import msgspec
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from machineshop.api.described import queue as described
from machineshop.api.endpoint import Api, Call
from machineshop.api.job_view import job_view
from machineshop.errors import InvalidRequest, MachineshopError, TooManyStreams
from machineshop.models import Include, Job
from machineshop.services.changes import Changes
from machineshop.services.deployments import DeploymentService
from machineshop.services.feed import Cursor, Feed
from machineshop.services.queue import QueueService
from machineshop.store.chunks import Chunks

log = logging.getLogger(__name__)

# Each is a connection, two tasks and an event: what is left over for everybody else is the limit.
MAX_STREAMS = 1_000
MAX_STREAMS_PER_KEY = 100
# How long a client waits before it comes back.
RETRY_MILLISECONDS = 2_000
# Proxies and clients take a connection for dead that says nothing for long.
KEEP_ALIVE_SECONDS = 15.0
# A stream reads once in this time at most, and all of them at the same moments, so that they share what they read.
TICK_SECONDS = 0.1
# A reader that takes nothing for this long only holds a place that others may want.
STALLED_SECONDS = 60.0

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_END = b"event: end\ndata: {}\n\n"


class Streams:
    """How many are open, in all and by key."""

    def __init__(self, limit: int = MAX_STREAMS, limit_per_key: int = MAX_STREAMS_PER_KEY) -> None:
        self._limit, self._limit_per_key = limit, limit_per_key
        self._by_key: Counter[str] = Counter()

    @property
    def number(self) -> int:
        """How many are open."""
        return self._by_key.total()

    def check(self, key_id: str) -> None:
        """Refuse one more where there are too many.

        Raises:
            TooManyStreams: There are, in all or of this key.
        """
        if self._by_key[key_id] >= self._limit_per_key:
            raise TooManyStreams(limit=self._limit_per_key, whose="of this key")
        if self.number >= self._limit:
            raise TooManyStreams(limit=self._limit, whose="on this server")

    @contextlib.contextmanager
    def opened(self, key_id: str) -> Iterator[None]:
        """Count one while it is open."""
        self._by_key[key_id] += 1
        try:
            yield
        finally:
            self._by_key[key_id] -= 1
            if not self._by_key[key_id]:
                del self._by_key[key_id]


class EventStream(Response):
    """An answer that goes on until its events end, its reader hangs up, or takes nothing any longer."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], streams: Streams, key_id: str) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._streams = streams
        self._key_id = key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Send what there is, as it comes."""
        with self._streams.opened(self._key_id):
            writing = asyncio.ensure_future(self._write(send))
            hung_up = asyncio.ensure_future(_hung_up(receive))
            try:
                await asyncio.wait([writing, hung_up], return_when=asyncio.FIRST_COMPLETED)
            finally:
                writing.cancel()
                hung_up.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await writing

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with contextlib.aclosing(self._events) as events:
                async for text in events:
                    async with asyncio.timeout(STALLED_SECONDS):
                        await send({"type": "http.response.body", "body": text, "more_body": True})
        except TimeoutError:
            return
        except MachineshopError as error:  # the reader comes back, and goes on where it was
            log.info("events.cut error=%s", error)
        await send({"type": "http.response.body", "body": b""})


class _Look(NamedTuple):
    """What a follower found."""

    text: bytes
    over: bool = False
    """Nothing will come after it."""
    more: bool = False
    """There is more already."""


class _QueueFollower:
    """Follows a whole queue from a place on."""

    def __init__(self, feed: Feed, deployment_id: str, place: Cursor) -> None:
        self._feed, self._deployment_id, self._place = feed, deployment_id, place

    def woken(self) -> AbstractContextManager[asyncio.Event]:
        """What is set when there may be something new."""
        return self._feed.changes.followed(self._deployment_id)

    async def look(self) -> _Look:
        """What is new."""
        page = await self._feed.page(self._deployment_id, self._place)
        self._place = page.end
        is_over = page.over and not page.more
        return _Look(page.text + _END if is_over else page.text, is_over, page.more)


class _JobFollower:
    """Follows one job until it has ended; the first look finds it as it is."""

    def __init__(self, feed: Feed, job: Job) -> None:
        self._feed, self._job, self._change = feed, job, -1
        self._attempt = self._known_chunks = 0

    def woken(self) -> AbstractContextManager[asyncio.Event]:
        """What is set when the job may have changed."""
        return self._feed.changes.followed(self._job.deployment_id, self._job.id)

    async def look(self) -> _Look:
        """The job, where it has changed, and what it has given of its outputs meanwhile."""
        found = await self._feed.job(self._job.project_id, self._job.id, self._attempt, self._known_chunks)
        if found is None:
            return _Look(_END, over=True)
        if found.attempt != self._attempt:
            self._attempt, self._known_chunks = found.attempt, 0
        given = b""
        if found.given.values:
            self._known_chunks = found.given.end
            given = _render_chunks(self._job.id, found.attempt, found.given)
            if found.ended:
                return _Look(given, more=True)  # The end comes last.
        text = found.text if found.change != self._change else b""
        self._change = found.change
        return _Look(text + given, found.ended, more=bool(given))


def routes(
    api: Api, queue: QueueService, deployments: DeploymentService, feed: Feed, streams: Streams | None = None
) -> list[Route]:
    """All routes of this module; `streams` counts those that are open, and knows their limits."""
    streams = streams or Streams()

    async def events(call: Call) -> Response:
        model, job_id, key_id = call.required("model"), call.query.get("request_id"), call.identity.key.id
        last = _parse_cursor(call.headers.get("last-event-id") or call.query.get("last_event_id"))
        follower: _JobFollower | _QueueFollower
        if job_id:
            follower = _JobFollower(feed, await queue.status(call.project_id, model, job_id))
        else:
            deployment = await deployments.get(call.project_id, model)
            follower = _QueueFollower(feed, deployment.id, await feed.begin(deployment.id, last))
        streams.check(key_id)
        return EventStream(call.while_key_holds(_follow(follower, feed.changes)), streams, key_id)

    return [api.route("GET", "/v1/queue/events", events, operation=described.EVENTS)]


def render(job: Job, contents: bool) -> bytes:
    """The event of a job's change, with or without its inputs and outputs."""
    data = msgspec.json.encode(job_view(job, Include.PAYLOAD if contents else Include.NONE))
    return b"id: %d.%d\nevent: job\ndata: %b\n\n" % (job.change, job.sequence, _one_line(data))


def _render_chunks(job_id: str, attempt: int, given: Chunks) -> bytes:
    """The event of what a running job has given; it has no id, for who comes back gets it all again."""
    data = {"request_id": job_id, "attempt": attempt, "first": given.first, "chunks": given.values}
    return b"event: chunks\ndata: %b\n\n" % _one_line(msgspec.json.encode(data))


def _one_line(data: bytes) -> bytes:
    """What came as JSON is as it came: between its values there may be ends of lines, which would end the data."""
    return data.replace(b"\r", b" ").replace(b"\n", b" ")


async def _follow(follower: _JobFollower | _QueueFollower, changes: Changes) -> AsyncGenerator[bytes, None]:
    """What to send, piece by piece."""
    yield b"retry: %d\n\n" % RETRY_MILLISECONDS
    with follower.woken() as changed:
        while not changes.closed:
            changed.clear()
            look = await follower.look()
            if look.text:
                yield look.text
            if look.over:
                return
            await _tick()
            if not look.more and not await _is_set(changed, KEEP_ALIVE_SECONDS):
                yield b": keep-alive\n\n"


async def _tick() -> None:
    """Wait for the next moment at which streams look."""
    now = asyncio.get_running_loop().time()
    await asyncio.sleep(TICK_SECONDS - now % TICK_SECONDS)


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Whether an event is set within this time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _parse_cursor(text: str | None) -> Cursor | None:
    """The place after an event.

    Raises:
        InvalidRequest: It is not the id of an event.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d{1,18})\.(\d{1,18})", text)
    if found is None:
        raise InvalidRequest(
            f"'{text[:64]}' is not the id of an event: pass on the id of the last one that came, as it is.",
            param="last_event_id",
        )
    return Cursor(int(found[1]), int(found[2]))
