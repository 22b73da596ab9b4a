"""A small platform over real HTTP: one queue with attempts and tokens, object storage, and faults on request."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

API_KEY = "msk_test_worker_key"
TERMINAL = ("done", "failed", "canceled")


@dataclass
class FakeJob:
    """A job as the fake keeps it."""

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
class Exchange:
    """One request with several updates, or for several jobs, and how many jobs it brought."""

    at: float
    updates: list[dict[str, Any]]
    max_jobs: int
    claimed: int


@dataclass(frozen=True)
class Update:
    """One update as it came in, and how it was answered."""

    at: float
    body: dict[str, Any]
    answer: int


class FakePlatform:
    """The platform as far as a worker sees it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.jobs: dict[str, FakeJob] = {}
        self.updates: list[Update] = []
        self.exchanges: list[Exchange] = []
        self.older = False
        """Whether it does not know of several updates, or jobs, in one request."""
        self.exchange_statuses: list[int] = []
        """Given to the next requests with several updates in place of a proper answer; nothing is changed then."""
        self.hold_exchanges: asyncio.Event | None = None
        """Where set, answers to such requests wait for it; what they ask for has happened by then."""
        self.claim_seconds: float | None = None
        """Where set, a job that was not heard of for so long is given out again."""
        self.hang_ups: random.Random | None = None
        """Where set, every tenth request ends with a closed connection: before or after it has had its effect."""
        self.files: dict[str, bytes] = {}
        self.polls: list[web.Request] = []
        self.connections: set[Any] = set()
        self.claim_answers: list[web.Response] = []
        """Given to the next polls in place of a proper answer."""
        self.update_statuses: list[int] = []
        """Given to the next updates in place of a proper answer; nothing is changed then."""
        self.storage_redirect: str | None = None
        self.elsewhere_redirect: str | None = None
        self.elsewhere_headers: list[dict[str, str]] = []
        self.upload_status = 200
        self.upload_request_status = 200
        self.upload_requests: list[dict[str, Any]] = []
        self.upload_headers: list[dict[str, str]] = []
        self.poll_seconds: float | None = None
        self.rest_of_claim: asyncio.Event | None = None
        """Where set, the headers of a claim go out at once, and its body with this event."""
        self.claimed_at: dict[str, float] = {}
        self.port = 0
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._hang_up_at_random])
        app.router.add_get("/internal/v1/queue/retrieve", self._retrieve)
        app.router.add_post("/internal/v1/videos/status", self._update)
        app.router.add_post("/internal/v1/queue/updates", self._exchange)
        app.router.add_post("/v1/storage/upload-request", self._upload_request)
        app.router.add_put("/signed/{name:.+}", self._put)
        app.router.add_get("/v1/storage/{name:.+}", self._get_file)
        app.router.add_get("/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Go away; `start` comes back on the same port, with the same jobs."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def submit(self, payload: Any, priority: int = 0) -> FakeJob:
        job = FakeJob(str(uuid.uuid4()), payload, priority)
        self.jobs[job.request_id] = job
        await self._tell()
        return job

    async def submit_many(self, payloads: list[Any]) -> list[FakeJob]:
        jobs = [FakeJob(str(uuid.uuid4()), payload) for payload in payloads]
        self.jobs.update({job.request_id: job for job in jobs})
        await self._tell()
        return jobs

    async def end_of_claims(self) -> None:
        """Have the polls look whether a claim has run out."""
        await self._tell()

    async def end(self, job: FakeJob, status: str, error: str) -> None:
        """End a job without its worker: a cancel that was waited for long enough, or a deadline."""
        job.status, job.token = status, None
        job.info["error"] = error
        await self._tell()

    async def give_to_another(self, job: FakeJob) -> None:
        """Let the claim expire and another worker take the job."""
        job.attempt += 1
        job.token = f"token-{uuid.uuid4()}"
        await self._tell()

    async def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        """Wait until `condition` holds; it is looked at after everything that happens here."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: bool(condition())), seconds)

    async def finished(self, job: FakeJob, seconds: float = 15.0) -> FakeJob:
        await self.until(lambda: job.status in TERMINAL, seconds)
        return job

    async def run(self, payload: Any) -> FakeJob:
        return await self.finished(await self.submit(payload))

    def updates_of(self, job: FakeJob, status: str | None = None) -> list[Update]:
        mine = [update for update in self.updates if update.body.get("request_id") == job.request_id]
        return [update for update in mine if status in (None, update.body.get("status"))]

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    @web.middleware
    async def _hang_up_at_random(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.hang_ups is None or self.hang_ups.random() > 0.1 or request.transport is None:
            return await handler(request)
        transport = request.transport
        if self.hang_ups.random() < 0.5:
            await handler(request)
        transport.abort()
        raise asyncio.CancelledError

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        self.polls.append(request)
        await self._tell()
        if self.claim_answers:
            return self.claim_answers.pop(0)
        if not _authorized(request):
            return _error(401, "wrong key")
        limit = float(request.query["timeout"].removesuffix("s")) if self.poll_seconds is None else self.poll_seconds
        max_jobs = 0 if self.older else int(request.query.get("max_jobs", "0"))
        try:
            await self.until(lambda: self._next_jobs(1), limit)
        except asyncio.TimeoutError:
            return web.json_response({"data": [] if max_jobs else None})
        if request.transport is None:
            return web.json_response({"data": None})
        claims = self._claim(max_jobs or 1)
        body = {"data": claims if max_jobs else claims[0] if claims else None}
        await self._tell()
        return await self._in_two_parts(request, body) if self.rest_of_claim else web.json_response(body)

    def _claim(self, max_jobs: int) -> list[dict[str, Any]]:
        return [self._claim_of(job) for job in self._next_jobs(max_jobs)]

    def _claim_of(self, job: FakeJob) -> dict[str, Any]:
        job.status, job.attempt, job.token = "running", job.attempt + 1, f"token-{uuid.uuid4()}"
        self.claimed_at[job.request_id] = job.heard_at = asyncio.get_running_loop().time()
        data = {key: getattr(job, key) for key in ("request_id", "payload", "priority", "info", "attempt")}
        return {**data, "attempt_token": job.token, "retries": job.attempt - 1}

    def _next_jobs(self, count: int) -> list[FakeJob]:
        waiting = [job for job in self.jobs.values() if job.status == "pending" or self._is_lost(job)]
        return sorted(waiting, key=lambda job: -job.priority)[:count]

    def _is_lost(self, job: FakeJob) -> bool:
        if self.claim_seconds is None or job.status != "running":
            return False
        return job.heard_at + self.claim_seconds < asyncio.get_running_loop().time()

    async def _in_two_parts(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        assert self.rest_of_claim
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        await self.rest_of_claim.wait()
        await answer.write(json.dumps(body).encode())
        await answer.write_eof()
        return answer

    async def _update(self, request: web.Request) -> web.Response:
        self.connections.add(request.transport)
        body = json.loads(await request.read())
        status, answer = self._answered(body, authorized=_authorized(request))
        await self._tell()
        return web.json_response(answer, status=status)

    async def _exchange(self, request: web.Request) -> web.Response:
        self.connections.add(request.transport)
        body = json.loads(await request.read())
        if self.older:
            self.exchange_statuses.append(404)
        claim = body["claim"] or {"max_jobs": 0}
        known = len(self.exchanges)
        self.exchanges.append(Exchange(_now(), body["updates"], claim["max_jobs"], 0))
        if self.exchange_statuses:
            return _error(self.exchange_statuses.pop(0), "as the test wants it")
        if not _authorized(request):
            return _error(401, "wrong key")
        answers = [self._in_batch(update) for update in body["updates"]]
        claims = self._claim(claim["max_jobs"])
        self.exchanges[known] = Exchange(_now(), body["updates"], claim["max_jobs"], len(claims))
        await self._tell()
        if self.hold_exchanges is not None:
            await self.hold_exchanges.wait()
        return web.json_response({"updates": answers, "data": claims})

    def _in_batch(self, body: dict[str, Any]) -> dict[str, Any]:
        status, answer = self._answered(body, authorized=True)
        return answer if status == 200 else {"request_id": body["request_id"], "http_status": status, **answer}

    def _answered(self, body: dict[str, Any], *, authorized: bool) -> tuple[int, dict[str, Any]]:
        status, answer = self._apply(body) if authorized else (401, _fault("wrong key"))
        self.updates.append(Update(_now(), body, status))
        return status, answer

    def _apply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.update_statuses:
            return self.update_statuses.pop(0), _fault("as the test wants it")
        job = self.jobs.get(body["request_id"])
        if job is None:
            return 404, _fault("no such job")
        if job.status != "running" or body.get("attempt_token") != job.token:
            return 409, _fault("this attempt is not the job's any more")
        job.heard_at = _now()
        job.info.update(body.get("info") or {})
        job.status = body["status"]
        if job.status == "done":
            job.outputs = body["payload"]
        answer = {"request_id": job.request_id, "status": job.status, "cancel_requested": job.cancel_requested}
        return 200, answer

    async def _upload_request(self, request: web.Request) -> web.Response:
        if not _authorized(request):
            return _error(401, "wrong key")
        self.upload_requests.append(await request.json())
        if self.upload_request_status != 200:
            return _error(self.upload_request_status, "this attempt is not the job's any more")
        name = self.upload_requests[-1]["filename"]
        url = f"{self.base_url}/signed/{name}?signature=s3cret"
        return web.json_response({"path": name, "upload_url": {"url": url, "method": "PUT"}})

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        assert self.elsewhere_redirect is not None
        self.elsewhere_headers.append(dict(request.headers))
        raise web.HTTPFound(self.elsewhere_redirect)

    async def _put(self, request: web.Request) -> web.Response:
        self.upload_headers.append(dict(request.headers))
        if self.upload_status != 200:
            return _error(self.upload_status, "no room left")
        self.files[request.match_info["name"]] = await request.read()
        return web.Response()

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        if not _authorized(request):
            return _error(401, "wrong key")
        if self.storage_redirect:
            raise web.HTTPTemporaryRedirect(self.storage_redirect)
        name = request.match_info["name"]
        return web.Response(body=self.files[name]) if name in self.files else _error(404, "no such file")


def _authorized(request: web.Request) -> bool:
    return request.headers.get("Authorization") == f"Bearer {API_KEY}"


def _error(status: int, message: str) -> web.Response:
    return web.json_response(_fault(message), status=status)


def _fault(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "param": None, "code": None}}


def _now() -> float:
    return asyncio.get_running_loop().time()
