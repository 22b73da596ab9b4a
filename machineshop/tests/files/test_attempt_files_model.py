"""Files of attempts against a model: random interleavings of uploads with everything that can happen to their jobs.

After each step users see what the model says. At the end no blob is without a row, and no row without a blob.
"""

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from factory import AnyArtifact, Clock, Jobs, upkeep_of
from machineshop.blobs import Storage
from machineshop.blobs.layout import new_file_key
from machineshop.errors import NotFound, StaleAttempt
from machineshop.models import ApiKey, Claim, Scope, Worker
from machineshop.runtime.base import Capacity
from machineshop.services.deployments import DeploymentService
from machineshop.services.file_names import NotAJobsFile
from machineshop.services.files import FileService
from machineshop.services.identity import IdentityService
from machineshop.services.queue import QueueService
from machineshop.states import JobVerb
from machineshop.store.database import Database, sqlite_url
from machineshop.store.losses import MAX_RETRIES
from machineshop.store.moves import Holder
from machineshop.store.schema import migrate

T = TypeVar("T")
REPLICAS = ("replica-1", "replica-2")
NAMES = st.sampled_from(["a", "b"])


class World:
    """One store and one folder for all walks; each walk has a deployment of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.folder = folder
        self.clock = Clock()
        self.database = Database(url)
        self.storage = Storage(folder)
        self.numbers = itertools.count()
        self.run(self._open())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def _open(self) -> None:
        self.database.start()
        self.identity = IdentityService(self.database, self.clock)
        self.deployments = DeploymentService(
            self.database, AnyArtifact(), lambda: Capacity(2, 8, 0), frozenset(), self.clock
        )
        self.queue = QueueService(self.database, self.deployments, self.clock)
        self.upkeep = upkeep_of(self.queue)
        key, _ = await self.identity.create_key("walks", "walks", Scope.DEVELOPER)
        self.project_id = key.project_id

    def close(self) -> None:
        self.queue.close()
        self.storage.close()
        self.database.close()
        self.runner.close()


@dataclass
class Attempt:
    """What the model knows of one attempt."""

    claim: Claim
    replica: str
    running: bool = True
    files: dict[str, bytes] = field(default_factory=dict)


class Upload:
    """An upload that has begun, and waits for its last bytes."""

    def __init__(self, attempt: Attempt, name: str, content: bytes) -> None:
        self.attempt = attempt
        self.name = name
        self.content = content
        self.begun = asyncio.Event()
        self.breaks_off = False
        self.go_on = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None

    async def parts(self) -> AsyncIterator[bytes]:
        yield self.content[:1]
        self.begun.set()
        await self.go_on.wait()
        if self.breaks_off:
            raise ConnectionError
        yield self.content[1:]


class AttemptFilesModel(RuleBasedStateMachine):
    """Random walks in `world`, which is set by the test."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        world = self.world
        self.run = world.run
        self.attempts: list[Attempt] = []
        self.urls: list[tuple[Attempt, str, str]] = []
        self.uploads: list[Upload] = []
        self.visible: dict[str, bytes] = {}
        self.ended: set[str] = set()
        self.losses: dict[str, int] = {}
        self.pending = 0
        self.files = self._new_service()
        self.deployment = self.run(
            world.deployments.create(
                world.project_id, {"name": f"walk-{next(world.numbers)}", "image": "r/n/h@sha256:1", "gpu_type": "none"}
            )
        )
        self.jobs = Jobs(world.queue, self.deployment)

    def _new_service(self) -> FileService:
        self.world.clock.now = max(self.world.clock.now, time.time())
        return FileService(self.world.database, self.world.storage, lambda: "http://shop", clock=self.world.clock)

    # Jobs.

    @precondition(lambda self: self.pending < 3)
    @rule()
    def submit(self) -> None:
        self.run(self.jobs.pending())
        self.pending += 1

    @precondition(lambda self: self.pending)
    @rule(replica=st.sampled_from(REPLICAS))
    def claim(self, replica: str) -> None:
        worker = Worker(hostname=replica, replica_id=replica, claim_timeout_seconds=3600)
        claim = self.run(self.jobs.claim(worker))
        assert claim is not None
        self.pending -= 1
        self.attempts.append(Attempt(claim, replica))

    @precondition(lambda self: self._running())
    @rule(data=st.data(), verb=st.sampled_from([JobVerb.FINISH, JobVerb.FINISH, JobVerb.FAIL, JobVerb.RELEASE]))
    def say(self, data: st.DataObject, verb: JobVerb) -> None:
        attempt = data.draw(st.sampled_from(self._running()))
        self.run(self.jobs.say(verb, attempt.claim.job.id, self._holder(attempt)))
        if verb is JobVerb.FINISH:
            self.visible |= {self._file(attempt, name): content for name, content in attempt.files.items()}
        self._end(attempt, back=verb is JobVerb.RELEASE)

    @precondition(lambda self: any(not attempt.running for attempt in self.attempts))
    @rule(data=st.data())
    def finish_stale(self, data: st.DataObject) -> None:
        stale = data.draw(st.sampled_from([attempt for attempt in self.attempts if not attempt.running]))
        with pytest.raises((StaleAttempt, NotFound)):
            self.run(self.jobs.finish(stale.claim.job.id, self._holder(stale)))

    @precondition(lambda self: self._running())
    @rule(replica=st.sampled_from(REPLICAS))
    def lose_replica(self, replica: str) -> None:
        self.run(self.world.upkeep.lose_replica(replica))
        for attempt in self._running():
            if attempt.replica == replica:
                job_id = attempt.claim.job.id
                self.losses[job_id] = self.losses.get(job_id, 0) + 1
                self._end(attempt, back=self.losses[job_id] <= MAX_RETRIES)

    @precondition(lambda self: self._running())
    @rule(data=st.data())
    def force_cancel(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(self._running()))
        queue = self.world.queue
        self.run(queue.cancel(self.world.project_id, self.deployment.name, attempt.claim.job.id, 0))
        assert attempt.replica in self.run(self.world.upkeep.reclaim(self.world.clock.now))
        self._end(attempt, back=False)

    @rule()
    def remove_ended_jobs(self) -> None:
        queue = self.world.queue
        self.run(queue.change_settings(self.world.project_id, self.deployment.name, {"keep_count": 0}, {}))
        self.run(self.world.upkeep.clean(self.world.clock.now))
        self.run(queue.change_settings(self.world.project_id, self.deployment.name, {"keep_count": 100}, {}))
        self.clean()
        self.visible = {name: content for name, content in self.visible.items() if name[:36] not in self.ended}

    # Files.

    @precondition(lambda self: self.attempts)
    @rule(data=st.data(), name=NAMES, says_token=st.booleans())
    def ask(self, data: st.DataObject, name: str, says_token: bool) -> None:
        attempt = data.draw(st.sampled_from(self.attempts))
        known = {"request_id": attempt.claim.job.id, "attempt_token": attempt.claim.token} if says_token else {}
        holder = attempt.running or (not says_token and self._holds_now(attempt))
        try:
            url = self.run(self.files.upload_url(self._key(attempt), self._file(attempt, name), **known))
        except (StaleAttempt, NotFound):
            assert not holder
        except NotAJobsFile:
            assert attempt.claim.job.id in self.ended, "only of a job that is gone nobody knows that it was one"
        else:
            assert holder
            now = attempt if attempt.running else self._holds_now(attempt)
            assert now is not None
            self.urls.append((now, name, url))

    @precondition(lambda self: self.urls and len(self.uploads) < 5)
    @rule(data=st.data())
    def begin_upload(self, data: st.DataObject) -> None:
        attempt, name, url = data.draw(st.sampled_from(self.urls))
        upload = Upload(attempt, name, os.urandom(20))
        query = dict(parse_qsl(urlsplit(url).query))
        begun = self.run(self._begin(upload, query))
        assert begun == attempt.running
        if begun:
            self.uploads.append(upload)

    async def _begin(self, upload: Upload, query: dict[str, str]) -> bool:
        name = self._file(upload.attempt, upload.name)
        upload.task = asyncio.create_task(self.files.receive(self.world.project_id, name, query, upload.parts()))
        waiting = asyncio.create_task(upload.begun.wait())
        await asyncio.wait([upload.task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if upload.task.done():
            assert isinstance(upload.task.exception(), StaleAttempt)
            return False
        return True

    @precondition(lambda self: self.uploads)
    @rule(data=st.data(), breaks_off=st.sampled_from([False, False, True]))
    def end_upload(self, data: st.DataObject, breaks_off: bool) -> None:
        upload = data.draw(st.sampled_from(self.uploads))
        self.uploads.remove(upload)
        upload.breaks_off = breaks_off
        error = self.run(self._ended(upload))
        if breaks_off:
            assert isinstance(error, ConnectionError)
        elif upload.attempt.running:
            assert error is None
            upload.attempt.files[upload.name] = upload.content
        else:
            assert isinstance(error, StaleAttempt)

    async def _ended(self, upload: Upload) -> BaseException | None:
        assert upload.task is not None
        upload.go_on.set()
        await asyncio.wait([upload.task])
        return upload.task.exception()

    @precondition(lambda self: len(self.uploads) > 1)
    @rule()
    def end_all_uploads_at_once(self) -> None:
        """Two of one name: either may be the last."""
        uploads, self.uploads = self.uploads, []
        self.run(self._all_ended(uploads))
        for upload in uploads:
            if upload.attempt.running:
                same = [u for u in uploads if (u.attempt, u.name) == (upload.attempt, upload.name)]
                etag = self.run(self._stored_etag(upload))
                (last,) = [u for u in same if u.task is not None and u.task.result().etag == etag]
                upload.attempt.files[upload.name] = last.content

    async def _all_ended(self, uploads: list[Upload]) -> None:
        await asyncio.gather(*(self._ended(upload) for upload in uploads))

    async def _stored_etag(self, upload: Upload) -> str:
        values = (
            upload.attempt.claim.job.id,
            upload.attempt.claim.job.attempt,
            self._file(upload.attempt, upload.name),
        )
        query = "SELECT etag FROM attempt_files WHERE job_id = '{}' AND attempt = {} AND name = '{}'".format(*values)
        return await self.world.database.read(lambda conn: str(conn.exec_driver_sql(query).scalar()))

    @rule()
    def clean(self) -> None:
        self.run(self.files.clean(self.world.clock.now))

    @rule()
    def restart(self) -> None:
        """The server ends and comes back: what was under way is gone, and a crash has left a blob without a row."""
        self.run(self._cut_off())
        left = self.world.folder / "blobs" / new_file_key()
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"x")
        for path in (*self._paths("blobs"), *self._paths("uploads")):
            os.utime(path, (1, 1))
        self.files = self._new_service()
        self.clean()
        assert not left.exists()

    async def _cut_off(self) -> None:
        tasks = [upload.task for upload in self.uploads if upload.task is not None]
        self.uploads = []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @invariant()
    def users_see_what_the_model_says(self) -> None:
        names = {self._file(attempt, name) for attempt in self.attempts for name in ("a", "b")}
        assert self.run(self._seen(names)) == self.visible

    async def _seen(self, names: set[str]) -> dict[str, bytes]:
        found = {}
        for name in sorted(names):
            try:
                _, blob = await self.files.open(self.world.project_id, name)
            except NotFound:
                continue
            found[name] = b"".join([part async for part in blob.chunks()])
        return found

    def teardown(self) -> None:
        self.run(self._cut_off())
        for replica in REPLICAS:
            self.run(self.world.upkeep.lose_replica(replica))
        self.clean()
        rows = self.run(self.world.database.read(_blob_keys))
        blobs = [str(path.relative_to(self.world.folder / "blobs")) for path in self._paths("blobs")]
        assert sorted(blobs) == sorted(rows)
        assert self._paths("uploads") == []
        assert self.run(self.world.database.read(_attempt_files)) == 0
        self.users_see_what_the_model_says()

    def _paths(self, folder: str) -> list[Path]:
        return [path for path in (self.world.folder / folder).rglob("*") if path.is_file()]

    def _running(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.running]

    def _holds_now(self, attempt: Attempt) -> Attempt | None:
        """The attempt in which the same replica holds the same job now."""
        for now in self._running():
            if (now.claim.job.id, now.replica) == (attempt.claim.job.id, attempt.replica):
                return now
        return None

    def _end(self, attempt: Attempt, *, back: bool) -> None:
        attempt.running = False
        if back:
            self.pending += 1
        else:
            self.ended.add(attempt.claim.job.id)

    def _holder(self, attempt: Attempt) -> Holder:
        return Holder(deployment_id=self.deployment.id, replica_id=attempt.replica, token=attempt.claim.token)

    def _key(self, attempt: Attempt) -> ApiKey:
        return ApiKey(
            id=attempt.replica,
            project_id=self.world.project_id,
            name=attempt.replica,
            prefix="",
            scope=Scope.WORKER,
            deployment_id=self.deployment.id,
            replica_id=attempt.replica,
            created_at=0,
        )

    def _file(self, attempt: Attempt, name: str) -> str:
        return f"{attempt.claim.job.id}-{name}"


def _blob_keys(conn: Any) -> list[str]:
    query = "SELECT blob_key FROM files UNION ALL SELECT blob_key FROM attempt_files"
    return list(conn.exec_driver_sql(query).scalars())


def _attempt_files(conn: Any) -> int:
    return int(conn.exec_driver_sql("SELECT count(*) FROM attempt_files").scalar())


def walk(url: str, examples: int) -> None:
    migrate(url)
    with tempfile.TemporaryDirectory() as folder:
        world = World(url, Path(folder))
        machine = type("Walk", (AttemptFilesModel,), {"world": world})
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=[HealthCheck.too_slow],
                ),
            )
        finally:
            world.close()


def test_on_sqlite(tmp_path: Path) -> None:
    walk(sqlite_url(tmp_path / "model.db"), 20)


def test_on_postgres(request: pytest.FixtureRequest) -> None:
    walk(request.getfixturevalue("postgres").create_database(), 10)
