"""Server-sent events through a real socket: what comes, in which order, what is never lost, and what is left behind."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from sqlalchemy import Connection
from starlette.applications import Starlette

from event_server import PATH, TERMINAL, Reader, Server
from factory import ADMIN_KEY, WORKER, Jobs, eventually, never_disconnected
from machineshop import server as servers
from machineshop.api import events as events_api
from machineshop.api.endpoint import Api
from machineshop.api.events import Streams
from machineshop.app import Platform
from machineshop.config import Settings
from machineshop.errors import StoreUnavailable
from machineshop.front import Front
from machineshop.ids import new_id
from machineshop.models import DEFAULT_SLUG, Deployment, DeploymentConfig, Identity, Scope
from machineshop.server import HttpServer
from machineshop.services.deployments import DeploymentService
from machineshop.services.feed import PAGE_BYTES, Cursor, Feed, Page
from machineshop.services.identity import IdentityService
from machineshop.services.queue import QueueService
from machineshop.states import JobState, JobVerb
from machineshop.store import deployments as store_deployments
from machineshop.store.chunks import Chunks
from machineshop.store.database import Database
from machineshop.store.jobs import JobFilter
from machineshop.store.moves import Holder
from machineshop.store.turns import Update
from migrated import migrated_database

both_databases = pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLite, unless a test asks for both."""
    return migrated_database(getattr(request, "param", "sqlite"), request, tmp_path)


@pytest.fixture
def streams() -> Streams:
    return Streams(limit=300, limit_per_key=250)


@pytest.fixture
async def server(
    database: Database,
    identity: IdentityService,
    admin: Identity,
    deployments: DeploymentService,
    queue: QueueService,
    deployment: Deployment,
    streams: Streams,
) -> AsyncIterator[Server]:
    feed = Feed(database, queue.changes, events_api.render)
    app = Starlette(routes=events_api.routes(Api(identity), queue, deployments, feed, streams))
    http = HttpServer("127.0.0.1", 0)
    await http.start(Front(app))
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with aiohttp.ClientSession(http.url(), headers=headers, connector=connector) as session:
        yield Server(session, http.port, feed, streams, deployment.name)
    queue.close()
    await http.stop()


def counted_reads(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[Cursor]:
    """Grows by one with each page that is read from now on."""
    reads: list[Cursor] = []
    read_page = server.feed._read_page

    def counted(conn: Connection, deployment_id: str, after: Cursor) -> Page:
        reads.append(after)
        return read_page(conn, deployment_id, after)

    monkeypatch.setattr(server.feed, "_read_page", counted)
    return reads


async def finish_all(jobs: Jobs, number: int) -> None:
    for claim in await jobs.claim_many(number):
        await jobs.finish(claim.job.id, Holder(token=claim.token), b'{"answer": 42}')


async def test_a_job_is_followed_from_what_it_is_to_its_end(server: Server, jobs: Jobs) -> None:
    job = await jobs.pending(fair_key="acme")
    async with server.stream(request_id=job.id) as reader:
        first = await reader.next()
        assert first is not None
        assert (first.name, first.status, first.job["request_id"]) == ("job", "pending", job.id)
        assert (first.job["inputs"], first.job["fair_key"]) == ({"number": 0}, "acme")
        assert reader.comments == ["retry: 2000"]
        claim = await jobs.claim()
        assert claim is not None
        assert (await reader.until("running")).job["attempt"] == 1
        await jobs.renew(job.id, Holder(token=claim.token), step=7)
        progress = await reader.next()
        assert progress is not None
        assert progress.job["info"] == {"step": 7}
        await jobs.finish(job.id, Holder(token=claim.token), b'{"answer": 42}')
        assert (await reader.until("done")).job["outputs"] == {"answer": 42}
        assert await reader.next() is None
    await eventually(lambda: not server.followers)


@both_databases
async def test_what_a_running_job_gives_is_told_as_it_comes_and_anew_with_each_attempt(
    server: Server, jobs: Jobs
) -> None:
    async def give(first: int, *texts: bytes) -> None:
        assert claim is not None
        given = Chunks(first, [msgspec.Raw(text) for text in texts])
        await jobs.say(JobVerb.RENEW, job.id, Holder(token=claim.token), given=given)

    async def next_chunks(reader: Reader) -> tuple[int, int, list[Any]]:
        event = await reader.next()
        assert event is not None
        assert (event.name, event.id, event.job["request_id"]) == ("chunks", "", job.id)
        return event.job["attempt"], event.job["first"], event.job["chunks"]

    job = await jobs.pending()
    claim = await jobs.claim()
    await give(0, b'{\n"text": "a"}', b"2")
    async with server.stream(request_id=job.id) as reader:
        await reader.until("running")
        assert await next_chunks(reader) == (1, 0, [{"text": "a"}, 2])
        await give(2, b"3")
        assert await next_chunks(reader) == (1, 2, [3])
        assert claim is not None
        await jobs.release(job.id, Holder(token=claim.token))
        await reader.until("pending")
        claim = await jobs.claim()
        await reader.until("running")
        await give(0, b'"anew"')
        assert await next_chunks(reader) == (2, 0, ["anew"])
        assert claim is not None
        await give(1, b'"the last one"')
        await jobs.finish(job.id, Holder(token=claim.token), b'{"answer": 42}')
        assert await next_chunks(reader) == (2, 1, ["the last one"])
        await reader.until("done")
        assert await reader.next() is None
    async with server.stream(request_id=job.id) as reader:
        await reader.until("done")  # who comes late gets the result alone
        assert await reader.next() is None


async def test_the_answer_is_one_that_proxies_and_browsers_leave_alone(server: Server, jobs: Jobs) -> None:
    job_id, _ = await jobs.in_state(JobState.DONE)
    async with server.session.get(PATH, params={"model": server.model, "request_id": job_id}) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        text = await answer.text()
    assert text.count("event: job") == 1
    assert text.endswith("\n\n")


async def test_ends_of_lines_in_what_was_submitted_are_none_of_the_events(server: Server, jobs: Jobs) -> None:
    job = await jobs.pending(payload=b'{\r\n  "text": "a\\nb",\n\r"more": 1}')
    async with server.stream(request_id=job.id) as reader:
        event = await reader.next()
        assert event is not None
        assert event.job["inputs"] == {"text": "a\nb", "more": 1}


@both_databases
async def test_a_queue_is_followed_from_now_on_without_what_its_jobs_hold(server: Server, jobs: Jobs) -> None:
    await jobs.in_state(JobState.DONE)
    async with server.stream() as reader:
        await server.following()
        job = await jobs.pending()
        first = await reader.next()
        assert first is not None
        assert (first.job["request_id"], first.status) == (job.id, "pending")
        assert (first.job["inputs"], first.job["outputs"]) == (None, None)
        await finish_all(jobs, 1)
        done = await reader.until("done")
        assert (done.job["request_id"], done.job["outputs"]) == (job.id, None)
        await jobs.queue.cancel(jobs.project_id, server.model, (await jobs.pending()).id)
        await reader.until("canceled")


@both_databases
@pytest.mark.parametrize("query", [False, True])
async def test_a_reader_that_comes_back_gets_what_it_missed(server: Server, jobs: Jobs, query: bool) -> None:
    async with server.stream() as reader:
        await server.following()
        await jobs.pending()
        await reader.until("pending")
        last_id = reader.last_id
    await finish_all(jobs, 1)
    missed = [(await jobs.pending()).id for _ in range(3)]
    again = server.stream(last_event_id=last_id) if query else server.stream(last_id)
    async with again as reader:
        events = [await reader.next() for _ in range(4)]
        assert [event.status for event in events if event] == ["done", "pending", "pending", "pending"]
        assert [event.job["request_id"] for event in events[1:] if event] == missed


async def test_an_id_from_another_database_is_taken_for_now(server: Server, jobs: Jobs) -> None:
    await jobs.pending()
    async with server.stream("999999.1") as reader:
        await server.following()
        job = await jobs.pending()
        event = await reader.next()
        assert event is not None
        assert event.job["request_id"] == job.id


@pytest.mark.parametrize(
    ("params", "status", "code", "param"),
    [
        ({"request_id": "nobody"}, 404, "not_found", None),
        ({"model": "nothing"}, 404, "not_found", None),
        ({"model": ""}, 400, "invalid_request", "model"),
        ({"last_event_id": "x"}, 400, "invalid_request", "last_event_id"),
        ({"last_event_id": "1.-1"}, 400, "invalid_request", "last_event_id"),
    ],
)
async def test_what_cannot_be_followed_is_refused_as_anywhere(
    server: Server, params: dict[str, str], status: int, code: str, param: str | None
) -> None:
    async with server.session.get(PATH, params={"model": server.model, **params}) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["param"]) == (status, code, param)
    assert server.streams.number == 0


async def test_other_projects_follow_nothing(server: Server, jobs: Jobs, identity: IdentityService) -> None:
    job = await jobs.pending()
    _, stranger = await identity.create_key("other", "stranger", Scope.DEVELOPER)
    for params in ({}, {"request_id": job.id}):
        query = {"model": server.model, **params}
        async with server.session.get(PATH, params=query, headers={"Authorization": f"Bearer {stranger}"}) as answer:
            assert answer.status == 404


async def test_a_stream_tells_nothing_once_its_key_has_ended(
    server: Server, jobs: Jobs, identity: IdentityService
) -> None:
    key, text = await identity.create_key(DEFAULT_SLUG, "revoked", Scope.VIEWER)
    headers = {"Authorization": f"Bearer {text}"}
    async with server.session.get(PATH, params={"model": server.model}, headers=headers) as answer:
        await server.following()
        reader = Reader(answer)
        job = await jobs.pending()
        assert (event := await reader.next()) is not None
        assert event.job["request_id"] == job.id
        await identity.revoke_key(key.id)
        await jobs.pending()
        assert await reader.next() is None


async def test_there_are_no_more_streams_than_may_be(server: Server, streams: Streams) -> None:
    streams._limit_per_key = 2
    async with server.stream(), server.stream() as reader:
        await server.following(2)
        async with server.session.get(PATH, params={"model": server.model}) as refused:
            assert (refused.status, refused.headers["retry-after"]) == (429, "5")
            assert (await refused.json())["error"]["code"] == "too_many_streams"
        streams._limit_per_key, streams._limit = 3, 2
        async with server.session.get(PATH, params={"model": server.model}) as refused:
            assert refused.status == 429
        assert reader.comments == []
    await eventually(lambda: streams.number == 0)
    async with server.stream():
        await server.following()


async def test_a_silent_stream_says_that_it_is_alive(
    server: Server, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_api, "KEEP_ALIVE_SECONDS", 0.05)
    async with server.stream() as reader:
        await server.following()
        waiting = asyncio.create_task(reader.next())
        await eventually(lambda: reader.comments.count(": keep-alive") >= 2)
        await jobs.pending()
        assert await waiting is not None


async def test_a_stream_reads_few_times_however_quickly_things_change(
    server: Server, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = counted_reads(server, monkeypatch)
    claim = await jobs.running()
    async with server.stream() as reader:
        await server.following()
        began = time.monotonic()
        for step in range(200):
            await jobs.renew(claim.job.id, Holder(token=claim.token), step=step)
        steps: list[int] = []
        while not steps or steps[-1] < 199:
            event = await reader.next()
            assert event is not None
            steps.append(event.job["info"]["step"])
        took = time.monotonic() - began
    assert steps == sorted(set(steps))
    assert len(reads) <= 3 + took / events_api.TICK_SECONDS


async def test_many_streams_read_together_and_all_get_everything(
    server: Server, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = counted_reads(server, monkeypatch)
    number, submitted = 200, 40

    async def follow() -> list[str]:
        async with server.stream() as reader:
            done: list[str] = []
            while len(done) < submitted:
                done.append((await reader.until("done")).job["request_id"])
            return done

    tasks = [asyncio.create_task(follow()) for _ in range(number)]
    await eventually(lambda: server.streams.number == number)
    await eventually(lambda: len(reads) > 0)
    before, began = len(reads), time.monotonic()
    expected = [(await jobs.pending()).id for _ in range(submitted)]
    await finish_all(jobs, submitted)
    async with asyncio.timeout(60):
        everything = await asyncio.gather(*tasks)
    assert all(sorted(done) == sorted(expected) for done in everything)
    took = time.monotonic() - began
    assert len(reads) - before <= 3 + took / events_api.TICK_SECONDS, "as for one of them"
    await eventually(lambda: server.streams.number == 0 and not server.followers)


async def test_who_hangs_up_leaves_nothing_behind(server: Server, jobs: Jobs) -> None:
    job = await jobs.pending()
    for _ in range(20):
        async with server.stream() as queue_reader, server.stream(request_id=job.id) as job_reader:
            assert await job_reader.next() is not None
            assert queue_reader.comments == []
    await eventually(lambda: server.streams.number == 0 and not server.followers)
    assert len([task for task in asyncio.all_tasks() if "EventStream" in repr(task.get_coro())]) == 0


async def test_what_a_slow_reader_does_not_take_is_not_read(
    server: Server, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many jobs with a lot of info: far more than fits in the buffers between."""
    info = {"text": "x" * 60_000}
    submissions = [jobs.submission(info=info) for _ in range(300)]
    pages = counted_reads(server, monkeypatch)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
    writer.write(
        f"GET {PATH}?model={server.model}&last_event_id=0.0 HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {ADMIN_KEY}\r\n\r\n".encode()
    )
    assert b"200" in await reader.readline()
    for start in range(0, 300, 100):
        await jobs.queue.submit_many(jobs.project_id, submissions[start : start + 100])
    total = 300 * 60_000
    await eventually(lambda: len(pages) >= 2)
    last = -1
    while last != len(pages):  # it comes to rest long before all is read
        last = len(pages)
        await asyncio.sleep(4 * events_api.TICK_SECONDS)
    assert len(pages) * PAGE_BYTES < total * 0.8
    writer.transport.abort()
    await eventually(lambda: server.streams.number == 0 and not server.followers)


async def test_a_database_that_goes_away_ends_a_stream_which_then_goes_on(
    server: Server, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server.stream() as reader:
        await server.following()
        await jobs.pending()
        await reader.until("pending")
        with monkeypatch.context() as away:

            async def unavailable(*_: object) -> Page:
                raise StoreUnavailable("away")

            away.setattr(server.feed, "page", unavailable)
            await finish_all(jobs, 1)
            assert await reader.next() is None
    async with server.stream(reader.last_id) as reader:
        await reader.until("done")


async def test_a_deployment_that_is_deleted_ends_its_streams(
    server: Server, jobs: Jobs, deployments: DeploymentService
) -> None:
    running = await jobs.running()
    waiting = await jobs.pending()
    async with server.stream() as reader:
        await server.following()
        await deployments.delete(jobs.project_id, server.model)
        jobs.queue.changes.wake_all()  # as the platform does for whatever happens to deployments
        canceled = await reader.until("canceled")
        assert canceled.job["request_id"] == waiting.id
        await jobs.finish(running.job.id, Holder(token=running.token))
        assert (await reader.until("done")).job["request_id"] == running.job.id
        end = await reader.next()
        assert end is not None
        assert (end.name, end.job) == ("end", {})
        assert await reader.next() is None


@both_databases
async def test_nothing_that_ends_is_lost_under_load_by_readers_that_come_and_go(server: Server, jobs: Jobs) -> None:
    """1,000 jobs worked by eight workers, while readers break off at random places and come back."""
    number = 1_000

    async def follow(pieces: int) -> dict[str, str]:
        ended: dict[str, str] = {}
        last_id, turn = "0.0", 0
        while len(ended) < number:
            turn += 1
            async with server.stream(last_id) as reader:
                for _ in range(pieces * turn):
                    event = await reader.next(20)
                    assert event is not None
                    if event.status in TERMINAL:
                        ended[event.job["request_id"]] = event.status
                    if len(ended) == number:
                        break
                last_id = reader.last_id
        return ended

    async def work(name: int) -> None:
        while claims := await jobs.work.retrieve(jobs.deployment, WORKER, 3, never_disconnected, 25):
            updates = [
                Update(verb=JobVerb.FAIL if place % 7 == name % 7 else JobVerb.FINISH, job_id=c.job.id, token=c.token)
                for place, c in enumerate(claims)
            ]
            await jobs.work.take_turn(jobs.project_id, jobs.deployment, Holder(), updates, None, 0)

    readers = [asyncio.create_task(follow(pieces)) for pieces in (1, 10, 100)]
    workers = [asyncio.create_task(work(name)) for name in range(8)]
    for _ in range(number // 50):
        await jobs.queue.submit_many(jobs.project_id, [jobs.submission() for _ in range(50)])
    async with asyncio.timeout(60):
        results = await asyncio.gather(*readers)
    await asyncio.gather(*workers)
    found = (await jobs.queue.list_page(jobs.project_id, server.model, JobFilter(), None, number)).jobs
    expected = {job.id: str(job.state) for job in found}
    assert len(expected) == number
    assert all(result == expected for result in results)


async def started(folder: Path) -> Platform:
    """A whole platform in this process."""
    platform = Platform(Settings(data_dir=folder, port=0, admin_key=ADMIN_KEY))
    await platform.start()
    return platform


@asynccontextmanager
async def events_of(platform: Platform, **params: str) -> AsyncIterator[Reader]:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with (
        aiohttp.ClientSession(platform.base_url, headers=headers) as session,
        session.get(PATH, params={"model": "hello", **params}) as answer,
    ):
        assert answer.status == 200
        yield Reader(answer)


async def insert_deployment(platform: Platform) -> Deployment:
    """One that asks for no replica, whose artifact nobody looks for."""
    now, project = time.time(), (await platform.parts.identity.authenticate(ADMIN_KEY)).project
    config = DeploymentConfig(name="hello", image="none", gpu_type="none", min_replicas=0)
    deployment = Deployment(
        id=new_id(),
        project_id=project.id,
        config=config,
        revision_id=new_id(),
        revision_number=1,
        created_at=now,
        updated_at=now,
    )
    await platform.parts.database.write(store_deployments.insert, deployment)
    return deployment


async def test_a_server_that_stops_ends_its_streams_at_once_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JIG_CONTEXTS", str(tmp_path / "contexts.json"))
    monkeypatch.setattr(servers, "CONNECTIONS_GRACE_SECONDS", 60)
    first = await started(tmp_path / "data")
    jobs = Jobs(first.parts.queue, await insert_deployment(first))
    job = await jobs.pending()
    async with events_of(first, last_event_id="0.0") as reader, events_of(first, request_id=job.id) as other:
        await reader.until("pending")
        await other.until("pending")
        began = time.monotonic()
        await first.stop(end_replicas=True)
        assert await reader.next() is None
        assert await other.next() is None
        assert time.monotonic() - began < 30, "the stop has not waited for them"
    second = await started(tmp_path / "data")
    jobs = Jobs(second.parts.queue, jobs.deployment)
    await finish_all(jobs, 1)
    async with events_of(second, last_event_id=reader.last_id) as reader:
        assert (await reader.until("done")).job["request_id"] == job.id
        await second.parts.deployments.delete(jobs.project_id, "hello")
        end = await reader.next()
        assert end is not None
        assert end.name == "end"
    await second.stop(end_replicas=True)
