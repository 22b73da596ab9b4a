"""The queue against a model of it: random interleavings of everything that can happen, on both databases.

The model says in plain Python what each call must do. After each step every job must be as the model has it.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection

from machineshop.errors import StaleAttempt
from machineshop.ids import new_id
from machineshop.models import Job, Worker
from machineshop.states import TERMINAL_STATES, JobState
from machineshop.store import jobs
from machineshop.store.database import sqlite_url
from machineshop.store.engines import Engines
from machineshop.store.jobs import MAX_RETRIES, Holder
from machineshop.store.schema import migrate

T = TypeVar("T")
CLAIM_SECONDS = 90.0
REPLICAS = st.sampled_from(["replica-1", "replica-2", "replica-3"])


@dataclass
class Expected:
    """What the model knows of one job."""

    id: str
    priority: int
    number: int
    state: JobState = JobState.PENDING
    retries: int = 0
    token: str | None = None
    replica: str | None = None
    last_replica: str | None = None
    expires_at: float = 0.0
    cancel_requested: bool = False
    outputs: bytes | None = None
    outcomes: list[str | None] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    def end_attempt(self, outcome: str, state: JobState) -> None:
        assert self.token is not None
        self.stale.append(self.token)
        self.token = self.replica = None
        self.outcomes[-1] = outcome
        self.state = state

    def lose(self) -> None:
        if self.cancel_requested:
            self.end_attempt("abandon", JobState.CANCELED)
        elif self.retries < MAX_RETRIES:
            self.retries += 1
            self.end_attempt("lose", JobState.PENDING)
        else:
            self.end_attempt("give_up", JobState.FAILED)


class QueueModel(RuleBasedStateMachine):
    """Random walks; `url` is set by the test."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.engines = Engines(self.url)
        self.now = 1_000.0
        self.numbers = itertools.count()
        self.jobs: list[Expected] = []
        self.project = self.deployment = ""

    def teardown(self) -> None:
        self.engines.close()

    @initialize()
    def make_deployment(self) -> None:
        self.project, self.deployment, organization = new_id(), new_id(), new_id()
        with self._transaction() as conn:
            execute = conn.exec_driver_sql
            execute(f"INSERT INTO organizations VALUES ('{organization}', 'o', '{organization}', 1)")
            execute(f"INSERT INTO projects VALUES ('{self.project}', '{organization}', 'p', 'p', 1)")
            execute(
                "INSERT INTO deployments (id, project_id, name, config, revision_id, revision_number, created_at, "
                f"updated_at) VALUES ('{self.deployment}', '{self.project}', 'm', '{{}}', 'r', "
                "1, 1, 1)"
            )

    @precondition(lambda self: len(self._waiting()) < 10)
    @rule(priorities=st.lists(st.integers(-1, 1), min_size=1, max_size=4))
    def submit(self, priorities: list[int]) -> None:
        for priority in priorities:
            self._submit(priority)

    def _submit(self, priority: int) -> None:
        job = Job(
            id=new_id(),
            project_id=self.project,
            deployment_id=self.deployment,
            model="m",
            state=JobState.PENDING,
            priority=priority,
            payload=msgspec.Raw(b"{}"),
            created_at=self.now,
        )
        self._do(jobs.insert, job)
        self.jobs.append(Expected(job.id, priority, next(self.numbers)))

    @precondition(lambda self: self._waiting() or len(self.jobs) == 0)
    @rule(replica=REPLICAS)
    def claim(self, replica: str) -> None:
        token, expires_at = new_id(), self.now + CLAIM_SECONDS
        worker = Worker(hostname=replica, replica_id=replica, claim_timeout_seconds=int(CLAIM_SECONDS))
        claim = self._do(jobs.claim, self.deployment, worker, token, self.now, expires_at)
        waiting = self._waiting()
        if not waiting:
            assert claim is None
            return
        first = min(waiting, key=lambda job: (-job.priority, job.number))
        assert claim is not None
        assert claim.job.id == first.id
        first.state, first.token, first.replica, first.expires_at = JobState.RUNNING, token, replica, expires_at
        first.last_replica = replica
        first.outcomes.append(None)

    @precondition(lambda self: self._running())
    @rule(data=st.data(), verb=st.sampled_from(["renew", "finish", "fail", "release", "abandon"]))
    def say_as_the_holder(self, data: st.DataObject, verb: str) -> None:
        job = data.draw(st.sampled_from(self._running()))
        self._say(verb, job, Holder(token=job.token, replica_id=job.replica))
        if verb == "renew":
            job.expires_at = self.now + CLAIM_SECONDS
        else:
            ended = {
                "finish": JobState.DONE,
                "fail": JobState.FAILED,
                "release": JobState.PENDING,
                "abandon": JobState.CANCELED,
            }
            job.outputs = b'{"by":"holder"}' if verb == "finish" else None
            if verb == "release" and job.cancel_requested:
                verb = "abandon"  # nobody wants it any longer
            job.end_attempt(verb, ended[verb])

    @precondition(lambda self: any(job.stale for job in self.jobs))
    @rule(data=st.data(), verb=st.sampled_from(["renew", "finish", "fail", "release", "abandon"]))
    def say_with_a_stale_token(self, data: st.DataObject, verb: str) -> None:
        job = data.draw(st.sampled_from([job for job in self.jobs if job.stale]))
        with pytest.raises(StaleAttempt):
            self._say(verb, job, Holder(token=data.draw(st.sampled_from(job.stale))))

    @precondition(lambda self: any(job.last_replica and job.state in TERMINAL_STATES for job in self.jobs))
    @rule(data=st.data(), verb=st.sampled_from(["finish", "fail"]))
    def say_after_the_end_without_a_token(self, data: st.DataObject, verb: str) -> None:
        ended = [job for job in self.jobs if job.last_replica and job.state in TERMINAL_STATES]
        job = data.draw(st.sampled_from(ended))
        with pytest.raises(StaleAttempt):
            self._say(verb, job, Holder(replica_id=job.last_replica))

    @precondition(lambda self: self._running())
    @rule(data=st.data(), verb=st.sampled_from(["renew", "finish"]))
    def say_as_another_replica(self, data: st.DataObject, verb: str) -> None:
        job = data.draw(st.sampled_from(self._running()))
        with pytest.raises(StaleAttempt):
            self._say(verb, job, Holder(replica_id="replica-of-somebody-else"))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self._do(jobs.cancel, self.project, "m", job.id, self.now)
        if job.state is JobState.PENDING:
            job.state = JobState.CANCELED
        elif job.state is JobState.RUNNING:
            job.cancel_requested = True

    @precondition(lambda self: self._running())
    @rule(seconds=st.sampled_from([1.0, 50.0, 91.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        self._do(jobs.expire, self.now)
        for job in self._running():
            if job.expires_at <= self.now:
                job.lose()

    @precondition(lambda self: self._running())
    @rule(replica=REPLICAS)
    def lose_replica(self, replica: str) -> None:
        self._do(jobs.lose_replica, replica, self.now)
        for job in self._running():
            if job.replica == replica:
                job.lose()

    @precondition(lambda self: len(self._waiting()) > 6)
    @rule()
    def clear(self) -> None:
        waiting = self._waiting()
        assert self._do(jobs.clear, self.project, self.deployment, self.now) == len(waiting)
        for job in waiting:
            job.state = JobState.CANCELED

    @invariant()
    def every_job_is_as_the_model_has_it(self) -> None:
        with self.engines.engine.connect() as conn:
            for expected in self.jobs:
                job = jobs.get(conn, self.project, "m", expected.id)
                assert job is not None
                assert job.state is expected.state
                assert (job.retries, job.attempt) == (expected.retries, len(expected.outcomes))
                assert (None if job.outputs is None else bytes(job.outputs)) == expected.outputs
                assert (job.done_at is not None) == (job.state in TERMINAL_STATES)
                rows = conn.exec_driver_sql(f"SELECT outcome FROM attempts WHERE job_id = '{job.id}' ORDER BY number")
                assert list(rows.scalars()) == expected.outcomes
                assert expected.outcomes.count(None) == (1 if job.state is JobState.RUNNING else 0)

    def _waiting(self) -> list[Expected]:
        return [job for job in self.jobs if job.state is JobState.PENDING]

    def _running(self) -> list[Expected]:
        return [job for job in self.jobs if job.state is JobState.RUNNING]

    def _say(self, verb: str, job: Expected, holder: Holder) -> None:
        match verb:
            case "renew":
                self._do(jobs.renew, self.project, job.id, holder, {"step": 1}, None, self.now)
            case "finish":
                self._do(jobs.finish, self.project, job.id, holder, msgspec.Raw(b'{"by":"holder"}'), {}, self.now)
            case "release":
                self._do(jobs.release, self.project, job.id, holder, self.now)
            case "fail":
                self._do(jobs.fail, self.project, job.id, holder, {"error": "e"}, self.now)
            case _:
                self._do(jobs.abandon, self.project, job.id, holder, {}, self.now)

    def _do(self, function: Callable[..., T], *args: Any) -> T:
        with self._transaction() as conn:
            return function(conn, *args)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engines.engine.connect() as conn:
            driver: Any = conn.connection.driver_connection
            driver.execute(self.engines.begin)
            try:
                yield conn
            except BaseException:
                driver.execute("ROLLBACK")
                raise
            driver.execute("COMMIT")


def walk(url: str, examples: int) -> None:
    migrate(url)
    machine = type("Walk", (QueueModel,), {"url": url})
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=40))


def test_on_sqlite(tmp_path: Path) -> None:
    walk(sqlite_url(tmp_path / "model.db"), 60)


def test_on_postgres(request: pytest.FixtureRequest) -> None:
    walk(request.getfixturevalue("postgres").create_database(), 25)
