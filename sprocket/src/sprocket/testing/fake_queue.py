"""A queue as a worker sees it, over real HTTP and in memory: jobs with attempts, tokens and cancels.

What a test does with it happens in the event loop that serves it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from sprocket.timeouts import timeout

API_KEY = "msk_test_worker_key"
TERMINAL = ("done", "failed", "canceled")


@dataclass
class FakeJob:
    """A job as the queue keeps it.

    Attributes:
        attempt: how often it was claimed.
        token: the attempt's that holds it now.
        heard_at: when its worker was last heard of, in the event loop's time.
    """

    request_id: str
    payload: Any
    priority: int = 0
    status: str = "pending"
    outputs: Any = None
    info: dict[str, Any] = field(default_factory=dict)
    attempt: int = 0
    token: str | None = None
    cancel_requested: bool = False
    heard_at: float = 0.0


@dataclass(frozen=True)
class Update:
    """One update as it came in, and the status with which it was answered."""

    at: float
    body: dict[str, Any]
    answer: int


class FakeQueue:
    """One queue; `routes` is its HTTP side.

    Attributes:
        api_key: with which a worker has to come.
    """

    api_key = API_KEY

    def __init__(self) -> None:
        self.jobs: dict[str, FakeJob] = {}
        self.updates: list[Update] = []
        self._changed = asyncio.Condition()

    def routes(self) -> list[web.RouteDef]:
        """Give what a worker calls."""
        return [
            web.get("/internal/v1/queue/retrieve", self._retrieve),
            web.post("/internal/v1/videos/status", self._update),
            web.post("/internal/v1/queue/updates", self._exchange),
        ]

    async def submit(self, payload: Any, priority: int = 0, info: Mapping[str, Any] | None = None) -> FakeJob:
        """Add a job."""
        job = FakeJob(str(uuid.uuid4()), payload, priority, info=dict(info or {}))
        self.jobs[job.request_id] = job
        await self._tell()
        return job

    async def cancel(self, job: FakeJob) -> None:
        """Cancel a job: a pending one at once, a running one once its worker has taken the wish up."""
        if job.status == "pending":
            job.status = "canceled"
        job.cancel_requested = True
        await self._tell()

    async def give_to_another(self, job: FakeJob) -> None:
        """Let the claim expire and another worker take the job."""
        job.attempt += 1
        job.token = f"token-{uuid.uuid4()}"
        await self._tell()

    async def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until `condition` holds; it is looked at after everything that happens here.

        Raises:
            asyncio.TimeoutError: it did not within `seconds`.
        """
        async with self._changed, timeout(seconds):
            await self._changed.wait_for(lambda: bool(condition()))

    async def finished(self, job: FakeJob, seconds: float = 30.0) -> FakeJob:
        """Wait for a job's end.

        Raises:
            asyncio.TimeoutError: it had not come within `seconds`.
        """
        await self.until(lambda: job.status in TERMINAL, seconds)
        return job

    async def run(self, payload: Any) -> FakeJob:
        """Submit a job and wait for its end."""
        return await self.finished(await self.submit(payload))

    def updates_of(self, job: FakeJob, status: str | None = None) -> list[Update]:
        """Give what was said about a job, or that of one status."""
        mine = [update for update in self.updates if update.body.get("request_id") == job.request_id]
        return [update for update in mine if status in (None, update.body.get("status"))]

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        if not authorized(request):
            return error_answer(401, "wrong key")
        max_jobs = self._max_jobs(request)
        try:
            await self.until(self._has_work, self._wait_seconds(request))
        except asyncio.TimeoutError:
            return web.json_response({"data": [] if max_jobs else None})
        if request.transport is None:
            return web.json_response({"data": None})  # Nobody is there to take a job any more.
        claims = self._claim(max_jobs or 1)
        await self._tell()
        return await self._claims_answer(request, {"data": claims if max_jobs else claims[0] if claims else None})

    def _wait_seconds(self, request: web.Request) -> float:
        return float(request.query["timeout"].removesuffix("s"))

    def _max_jobs(self, request: web.Request) -> int:
        """How many jobs may be claimed at once; 0 for one that is no list."""
        return int(request.query.get("max_jobs", "0"))

    async def _claims_answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        del request  # It is for those that answer in another way.
        return web.json_response(body)

    def _has_work(self) -> bool:
        return bool(self._next_jobs(1))

    def _claim(self, max_jobs: int) -> list[dict[str, Any]]:
        return [self._claim_of(job) for job in self._next_jobs(max_jobs)]

    def _claim_of(self, job: FakeJob) -> dict[str, Any]:
        job.status, job.attempt, job.token = "running", job.attempt + 1, f"token-{uuid.uuid4()}"
        job.heard_at = now()
        data = {key: getattr(job, key) for key in ("request_id", "payload", "priority", "info", "attempt")}
        return {**data, "attempt_token": job.token, "retries": job.attempt - 1}

    def _next_jobs(self, count: int) -> list[FakeJob]:
        waiting = [job for job in self.jobs.values() if self._is_free(job)]
        return sorted(waiting, key=lambda job: -job.priority)[:count]

    def _is_free(self, job: FakeJob) -> bool:
        return job.status == "pending"

    async def _update(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        status, answer = self._answered(body, authorized=authorized(request))
        await self._tell()
        return web.json_response(answer, status=status)

    async def _exchange(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if not authorized(request):
            return error_answer(401, "wrong key")
        answers = [self._in_batch(update) for update in body["updates"]]
        claims = self._claim((body["claim"] or {"max_jobs": 0})["max_jobs"])
        await self._tell()
        return web.json_response({"updates": answers, "data": claims})

    def _in_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        status, answer = self._answered(body, authorized=True)
        return answer if status == 200 else {"request_id": body["request_id"], "http_status": status, **answer}

    def _answered(self, body: dict[str, Any], *, authorized: bool) -> tuple[int, dict[str, Any]]:
        status, answer = self._apply(body) if authorized else (401, fault("wrong key"))
        self.updates.append(Update(now(), body, status))
        return status, answer

    def _apply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        job = self.jobs.get(body["request_id"])
        if job is None:
            return 404, fault("no such job")
        if job.status != "running" or body.get("attempt_token") != job.token:
            return 409, fault("this attempt is not the job's any more")
        job.heard_at = now()
        job.info.update(body.get("info") or {})
        job.status = body["status"]
        if job.status == "done":
            job.outputs = body["payload"]
        answer = {"request_id": job.request_id, "status": job.status, "cancel_requested": job.cancel_requested}
        return 200, answer


def authorized(request: web.Request) -> bool:
    """Whether the request carries the worker's key."""
    return request.headers.get("Authorization") == f"Bearer {API_KEY}"


def error_answer(status: int, message: str) -> web.Response:
    """Give an error as the platform words it."""
    return web.json_response(fault(message), status=status)


def fault(message: str) -> dict[str, Any]:
    """Give the body of an error."""
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


def now() -> float:
    """Give the running event loop's time."""
    return asyncio.get_running_loop().time()
