"""The queue of `sprocket.testing`, with a storage in memory and faults on request."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import ssl
import uuid
import warnings
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from sprocket.testing.fake_queue import API_KEY, FakeJob, FakeQueue, authorized, error_answer, fault, now

__all__ = ["API_KEY", "Exchange", "FakeJob", "FakePlatform"]


@dataclass(frozen=True)
class Exchange:
    """One request with several updates, or for several jobs, and how many jobs it brought."""

    at: float
    updates: list[dict[str, Any]]
    max_jobs: int
    claimed: int


class FakePlatform(FakeQueue):
    """The queue that is shipped to users, with a storage in memory and faults on request."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.tls = tls
        self.exchanges: list[Exchange] = []
        self.older = False
        """Whether it does not know of several updates, or jobs, in one request."""
        self.exchange_statuses: list[int] = []
        """Given to the next requests with several updates in place of a proper answer; nothing is changed then."""
        self.hand_back_statuses: list[int] = []
        """The same, for the next requests that hand a job back."""
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
        self.storage_headers: dict[str, str] = {}
        """Of every file that is read."""
        self.elsewhere_redirect: str | None = None
        self.elsewhere_headers: list[dict[str, str]] = []
        self.upload_status = 200
        self.upload_request_status = 200
        self.upload_requests: list[dict[str, Any]] = []
        self.upload_headers: list[dict[str, str]] = []
        self.upload_statuses: list[int] = []
        """Given to the next uploads in place of a proper answer."""
        self.multipart: list[tuple[str, dict[str, Any]]] = []
        self.multipart_statuses: dict[str, list[int]] = {}
        """Given to the next `init`, `complete` or `abort` in place of a proper answer."""
        self.part_statuses: dict[int, list[int]] = {}
        """Given to the next uploads of a part of this number in place of a proper answer."""
        self.parts: dict[str, dict[int, bytes]] = {}
        self.poll_seconds: float | None = None
        self.rest_of_claim: asyncio.Event | None = None
        """Where set, the headers of a claim go out at once, and its body with this event."""
        self.claimed_at: dict[str, float] = {}
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30, middlewares=[self._hang_up_at_random])
        app.add_routes(self.routes())
        app.router.add_post("/v1/storage/upload-request", self._upload_request)
        app.router.add_put("/signed/{name:.+}", self._put)
        app.router.add_post("/v1/storage/multipart/{step}", self._multipart)
        app.router.add_put("/part/{upload_id}/{number}", self._put_part)
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
            # A connection that was accepted in that moment is nobody's, and would be missed in some other test.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                await asyncio.sleep(0)
                gc.collect()

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
        return self.claim_answers.pop(0) if self.claim_answers else await super()._retrieve(request)

    def _wait_seconds(self, request: web.Request) -> float:
        return super()._wait_seconds(request) if self.poll_seconds is None else self.poll_seconds

    def _max_jobs(self, request: web.Request) -> int:
        return 0 if self.older else super()._max_jobs(request)

    def _claim_of(self, job: FakeJob) -> dict[str, Any]:
        self.claimed_at[job.request_id] = now()
        return super()._claim_of(job)

    def _is_free(self, job: FakeJob) -> bool:
        return super()._is_free(job) or self._is_lost(job)

    def _is_lost(self, job: FakeJob) -> bool:
        if self.claim_seconds is None or job.status != "running":
            return False
        return job.heard_at + self.claim_seconds < now()

    async def _claims_answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if self.rest_of_claim is None:
            return await super()._claims_answer(request, body)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        await self.rest_of_claim.wait()
        await answer.write(json.dumps(body).encode())
        await answer.write_eof()
        return answer

    async def _update(self, request: web.Request) -> web.Response:
        self.connections.add(request.transport)
        return await super()._update(request)

    async def _exchange(self, request: web.Request) -> web.Response:
        self.connections.add(request.transport)
        body = await request.json()
        if self.older:
            self.exchange_statuses.append(404)
        max_jobs = (body["claim"] or {"max_jobs": 0})["max_jobs"]
        known = len(self.exchanges)
        self.exchanges.append(Exchange(now(), body["updates"], max_jobs, 0))
        if self.exchange_statuses:
            return error_answer(self.exchange_statuses.pop(0), "as the test wants it")
        if self.hand_back_statuses and any(update["status"] == "pending" for update in body["updates"]):
            return error_answer(self.hand_back_statuses.pop(0), "as the test wants it")
        answer = await super()._exchange(request)
        if answer.status == 200:
            claimed = len(json.loads(answer.text or "")["data"])
            self.exchanges[known] = Exchange(now(), body["updates"], max_jobs, claimed)
        if self.hold_exchanges is not None:
            await self.hold_exchanges.wait()
        return answer

    def _apply(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.update_statuses:
            return self.update_statuses.pop(0), fault("as the test wants it")
        return super()._apply(body)

    async def _upload_request(self, request: web.Request) -> web.Response:
        if not authorized(request):
            return error_answer(401, "wrong key")
        self.upload_requests.append(await request.json())
        if self.upload_request_status != 200:
            return error_answer(self.upload_request_status, "this attempt is not the job's any more")
        name = self.upload_requests[-1]["filename"]
        url = f"{self.base_url}/signed/{name}?signature=s3cret"
        return web.json_response({"path": name, "upload_url": {"url": url, "method": "PUT"}})

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        assert self.elsewhere_redirect is not None
        self.elsewhere_headers.append(dict(request.headers))
        raise web.HTTPFound(self.elsewhere_redirect)

    async def _put(self, request: web.Request) -> web.Response:
        self.upload_headers.append(dict(request.headers))
        if self.upload_statuses:
            return error_answer(self.upload_statuses.pop(0), "the URL has expired")
        if self.upload_status != 200:
            return error_answer(self.upload_status, "no room left")
        self.files[request.match_info["name"]] = await request.read()
        return web.Response()

    async def _multipart(self, request: web.Request) -> web.Response:
        step, wish = request.match_info["step"], await request.json()
        self.multipart.append((step, wish))
        if self.multipart_statuses.get(step):
            return error_answer(self.multipart_statuses[step].pop(0), "as the test wants it")
        if step == "init":
            upload_id = f"upload-{len(self.multipart)}"
            self.parts[upload_id] = {}
            urls = [
                {"part_number": n, "url": f"{self.base_url}/part/{upload_id}/{n}?signature=s3cret", "method": "PUT"}
                for n in range(1, wish["parts_count"] + 1)
            ]
            return web.json_response({"upload_id": upload_id, "path": wish["filename"], "part_upload_urls": urls})
        parts = self.parts.pop(wish["upload_id"])
        if step == "complete":
            assert [part["etag"] for part in wish["parts"]] == [f"etag-{part['part_number']}" for part in wish["parts"]]
            self.files[wish["filename"]] = b"".join(parts[part["part_number"]] for part in wish["parts"])
        return web.json_response({})

    async def _put_part(self, request: web.Request) -> web.Response:
        self.upload_headers.append(dict(request.headers))
        number = int(request.match_info["number"])
        if self.part_statuses.get(number):
            return error_answer(self.part_statuses[number].pop(0), "as the test wants it")
        content = await request.read()
        self.parts[request.match_info["upload_id"]][number] = content
        return web.Response(headers={"ETag": f'"etag-{number}"'})

    async def _get_file(self, request: web.Request) -> web.StreamResponse:
        if not authorized(request):
            return error_answer(401, "wrong key")
        if self.storage_redirect:
            raise web.HTTPTemporaryRedirect(self.storage_redirect)
        name = request.match_info["name"]
        if name not in self.files:
            return error_answer(404, "no such file")
        return web.Response(body=self.files[name], headers=self.storage_headers)
