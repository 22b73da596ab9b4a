"""The worker's own HTTP: /health, /metrics and the path of predict. The port is bound before the model is set up."""

from __future__ import annotations

import asyncio
import enum
import errno
import json
import re
import uuid
from collections.abc import Callable
from typing import Any

from aiohttp import web

from .errors import ConfigError
from .event_stream import EVENTS_TYPE, EventStream
from .http_answer import Refusal, answer_for, not_taken, refused, routed
from .job import Job
from .metrics import Metrics
from .outcome import Outcome
from .workbench import Workbench

REQUEST_LIMIT_BYTES = 64 * 1024**2
"""A body is held in memory; larger inputs go as files."""

HEAD_LINE_LIMIT_BYTES = 64 * 1024
"""What the platform lets a head have in all, so that no line which it passes on is too long here."""

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Health(enum.Enum):
    """What /health says."""

    STARTING = "starting"
    """Setup is running: 503."""
    HEALTHY = "healthy"
    """Ready, also while predict runs: 200."""
    DRAINING = "draining"
    """About to stop, takes nothing new: 503."""


class Server:
    """Serves one worker."""

    def __init__(
        self, workbench: Workbench, metrics: Metrics, predict_path: str, describe: Callable[[], dict[str, Any]]
    ) -> None:
        self.health = Health.STARTING
        self._workbench = workbench
        self._metrics = metrics
        self._describe = describe
        self._requests: set[asyncio.Task[Outcome]] = set()
        app = web.Application(client_max_size=REQUEST_LIMIT_BYTES, middlewares=[routed])
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/openapi.json", self._get_openapi)
        app.router.add_post(predict_path, self._post_predict)
        # handler_cancellation: a client that hangs up wants no answer any more, so its job is cancelled.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=1.0,
            max_line_size=HEAD_LINE_LIMIT_BYTES,
            max_field_size=HEAD_LINE_LIMIT_BYTES,
        )

    async def start(self, port: int) -> int:
        """Bind the port, or any free one for 0; give the port bound.

        Raises:
            ConfigError: the port is taken or not allowed.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "0.0.0.0", port).start()  # noqa: S104 - the platform comes from outside
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
            raise ConfigError(f"port {port} {reason}; choose another one with --port or PORT") from None
        return int(self._runner.addresses[0][1])

    async def drained(self) -> None:
        """Wait until the requests in hand are answered."""
        while self._requests:
            await asyncio.wait(list(self._requests))
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    def _health(self) -> Health:
        return Health.STARTING if self.health is Health.HEALTHY and not self._workbench.ready else self.health

    async def _get_health(self, _: web.Request) -> web.Response:
        health = self._health()
        return web.json_response({"status": health.value}, status=200 if health is Health.HEALTHY else 503)

    async def _get_metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._metrics.render(), content_type="text/plain")

    async def _get_openapi(self, _: web.Request) -> web.Response:
        return web.json_response(self._describe())

    async def _post_predict(self, request: web.Request) -> web.StreamResponse:
        health = self._health()
        if health is not Health.HEALTHY:
            return not_taken(Refusal(503, f"the worker is {health.value}", health.value))
        try:
            payload = json.loads(await request.read())
        except web.HTTPRequestEntityTooLarge:
            return refused(
                Refusal(
                    413, f"the body has more than {REQUEST_LIMIT_BYTES} bytes; send large inputs as files", "too_large"
                )
            )
        except ValueError:
            return refused(Refusal(400, "the body is not JSON", "invalid_json"))
        if not isinstance(payload, dict):
            return refused(
                Refusal(400, f"the body must be a JSON object, not {type(payload).__name__}", "not_an_object")
            )
        # Requests whose files are still being fetched have no slot yet, and will want one.
        if not self._workbench.slots.free or len(self._requests) >= self._workbench.slots.count:
            return not_taken(Refusal(503, "the model is busy with other requests", "busy"))
        headers = {name.lower(): value for name, value in request.headers.items()}
        job = Job(_request_id(headers.get("x-request-id", "")), payload, headers=headers)
        stream = EventStream(request, job) if EVENTS_TYPE in request.headers.get("Accept", "") else None
        working = self._begin(job)
        try:
            return await stream.answer(working) if stream else answer_for(await asyncio.shield(working), job)
        except asyncio.CancelledError:
            job.cancel()
            raise

    def _begin(self, job: Job) -> asyncio.Task[Outcome]:
        # A task of its own: the model goes on, and stays busy, after its client has hung up.
        working = asyncio.ensure_future(self._workbench.work(job))
        self._requests.add(working)
        working.add_done_callback(self._take_note)
        return working

    def _take_note(self, working: asyncio.Task[Outcome]) -> None:
        self._requests.discard(working)
        if not working.cancelled():
            self._metrics.count(working.result())
            self._workbench.told(working.result())  # All but told: its answer goes out before the port is closed.


def _request_id(given: str) -> str:
    """Take the client's id where it can be part of a file's name, as it is when the outputs have files."""
    return given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
