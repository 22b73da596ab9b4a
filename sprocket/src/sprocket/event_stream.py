"""The answer to a client that accepts server-sent events: chunks as the model gives them, then how predict ended.

A chunk is an event without a name, what `emit_info` says is an `info`, and the last one is `done` or `error`.
"""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from .http_answer import answer_for, refusal_of
from .job import Job
from .logs import log
from .outcome import Done, Outcome
from .timeouts import timeout

EVENTS_TYPE = "text/event-stream"

KEEP_ALIVE_SECONDS = 15.0
"""Proxies and clients take a connection for dead that says nothing for long."""

STALLED_SECONDS = 60.0
"""A client that takes nothing for so long wants no more."""

BACKLOG_LIMIT_CHARS = 64 * 1024**2
"""What may wait for a client that is slower than the model."""


class EventStream:
    """One request's answer.

    Args:
        request: the request.
        job: its job, which has not begun.
    """

    def __init__(self, request: web.Request, job: Job) -> None:
        self._request = request
        self._job = job
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._response: web.StreamResponse | None = None
        job.keeps_chunks = False
        job.on_info = self._hear_from_any_thread

    async def answer(self, working: asyncio.Future[Outcome]) -> web.StreamResponse:
        """Answer with all that comes until predict has ended.

        What goes wrong before there is anything to tell is answered as if nobody had asked for events, with its status.
        """
        working.add_done_callback(lambda _: self._news.set())
        try:
            while not working.done():
                if await self._has_news():
                    await self._send_news()
                else:
                    await self._send(": keep-alive\n\n")
            await self._send_news()
            return await self._end(working.result())
        except asyncio.TimeoutError:
            log.warning("the client takes nothing, so its request is cancelled", extra=self._job.tag)
        except ConnectionError:
            pass  # It has hung up, in this very moment.
        self._job.cancel()
        if self._request.transport is not None:
            self._request.transport.abort()
        return self._response or web.Response()

    async def _has_news(self) -> bool:
        """Wait for news; give whether there were any within the time in which something has to be said."""
        try:
            async with timeout(KEEP_ALIVE_SECONDS):
                await self._news.wait()
        except asyncio.TimeoutError:
            return False
        self._news.clear()
        return True

    async def _send_news(self) -> None:
        texts = [f"event: info\ndata: {json.dumps(info)}\n\n" for info in [self._job.take_news()] if info]
        while self._job.has_chunks:
            texts += [f"data: {text}\n\n" for text in self._job.chunks.take().texts]
            await self._send("".join(texts))
            texts = []
        if texts:
            await self._send("".join(texts))

    async def _end(self, outcome: Outcome) -> web.StreamResponse:
        if isinstance(outcome, Done):
            await self._send(f"event: done\ndata: {outcome.outputs.text()}\n\n")
        elif self._response is None:
            return answer_for(outcome, self._job)
        else:
            await self._send(f"event: error\ndata: {json.dumps(refusal_of(outcome).body())}\n\n")
        response = await self._begun()
        await response.write_eof()
        return response

    async def _send(self, text: str) -> None:
        response = await self._begun()
        async with timeout(STALLED_SECONDS):
            await response.write(text.encode())

    async def _begun(self) -> web.StreamResponse:
        if self._response is None:
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "X-Request-ID": self._job.id}
            self._response = web.StreamResponse(headers=headers)
            self._response.content_type = EVENTS_TYPE
            self._response.charset = "utf-8"
            await self._response.prepare(self._request)
        return self._response

    def _hear_from_any_thread(self, _: Job) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self._news.set()
        if self._job.chunks.size_chars > BACKLOG_LIMIT_CHARS:
            log.warning("the client is slower than the model, so its request is cancelled", extra=self._job.tag)
            self._job.chunks.refuse()
            self._job.cancel()
