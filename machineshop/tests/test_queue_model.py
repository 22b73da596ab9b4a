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

from machineshop.errors import IdempotencyConflict, QueueFull, StaleAttempt
from machineshop.ids import new_id
from machineshop.models import Claim, FairKey, Job, Worker
from machineshop.states import TERMINAL_STATES, JobState, JobVerb
from machineshop.store import claims, jobs, losses, queues, turns, withdrawals
from machineshop.store.attempts import MAX_RELEASES
from machineshop.store.claims import Wanted
from machineshop.store.database import sqlite_url
from machineshop.store.engines import Engines
from machineshop.store.losses import MAX_RETRIES
from machineshop.store.moves import Holder
from machineshop.store.schema import migrate
from machineshop.store.turns import Update

T = TypeVar("T")
CLAIM_SECONDS = 90.0
MAX_PENDING, CAP = 10, 2
CAPPED = FairKey(weight=2.0, max_running=CAP)
KEYS = ["", "", "free", "capped"]
REPLICAS = st.sampled_from(["replica-1", "replica-2", "replica-3"])


@dataclass
class Expected:
    """What the model knows of one job."""

    id: str
    priority: int
    number: int
    fair_key: str = ""
    deadline_at: float | None = None
    idempotency_key: str | None = None
    has_webhook: bool = False
    missed: bool = False
    state: JobState = JobState.PENDING
    retries: int = 0
    releases: int = 0
    cancel_due_at: float | None = None
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
        if state is JobState.PENDING:
            self.cancel_due_at = None

    def release(self) -> None:
        if self.cancel_requested:
            self.end_attempt("abandon", JobState.CANCELED)  # nobody wants it any longer
        elif self.releases < MAX_RELEASES:
            self.releases += 1
            self.end_attempt("release", JobState.PENDING)
        else:
            self.lose()

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
        self.payloads: dict[str, int] = {}
        self.seen = (0, 0)
        self.followed: dict[str, JobState] = {}

    def teardown(self) -> None:
        self.engines.close()

    @initialize()
    def make_deployment(self) -> None:
        self.project, self.deployment, organization = new_id(), new_id(), new_id()
        with self._transaction() as conn:
            execute = conn.exec_driver_sql
            execute(f"INSERT INTO organizations VALUES ('{organization}', 'o', '{organization}', 1)")
            execute(
                "INSERT INTO projects (id, organization_id, name, slug, created_at) "
                f"VALUES ('{self.project}', '{organization}', 'p', 'p', 1)"
            )
            execute(
                "INSERT INTO deployments (id, project_id, name, config, revision_id, revision_number, created_at, "
                f"updated_at) VALUES ('{self.deployment}', '{self.project}', 'm', '{{}}', 'r', "
                "1, 1, 1)"
            )
            queues.create(conn, self.deployment)
            queues.change_settings(conn, self.deployment, {"max_pending": MAX_PENDING}, {"capped": CAPPED})

    @rule(
        new=st.lists(
            st.tuples(
                st.integers(-1, 1), st.sampled_from(KEYS), st.sampled_from([None, None, 30.0, 200.0]), st.booleans()
            ),
            min_size=1,
            max_size=4,
        )
    )
    def submit(self, new: list[tuple[int, str, float | None, bool]]) -> None:
        """Several at once, all or none."""
        submitted = [
            self._new_job(priority, fair_key=key, deadline=deadline, webhook=webhook)
            for priority, key, deadline, webhook in new
        ]
        if len(self._waiting()) + len(new) > MAX_PENDING:
            with pytest.raises(QueueFull):
                self._do(jobs.insert, submitted)
            return
        assert self._do(jobs.insert, submitted) == submitted
        for job in submitted:
            self._expect(job)

    @precondition(lambda self: len(self._waiting()) < MAX_PENDING)
    @rule(name=st.sampled_from(["a", "b"]), number=st.integers(1, 2))
    def submit_with_an_idempotency_key(self, name: str, number: int) -> None:
        job = self._new_job(0, payload=f'{{"n": {number}}}', idempotency_key=name)
        known = next((before for before in self.jobs if before.idempotency_key == name), None)
        if known is None:
            assert self._do(jobs.insert, [job]) == [job]
            self._expect(job)
            self.payloads[name] = number
        elif self.payloads[name] == number:
            (stored,) = self._do(jobs.insert, [job])
            assert stored.id == known.id
        else:
            with pytest.raises(IdempotencyConflict):
                self._do(jobs.insert, [job])

    @precondition(lambda self: len(self._waiting()) < 2)
    @rule(replica=REPLICAS, priority=st.integers(-1, 1), key=st.sampled_from(KEYS), number=st.sampled_from([1, 2]))
    def submit_to_a_waiting_worker(self, replica: str, priority: int, key: str, number: int) -> None:
        """As a submit and a claim after it, whichever way it takes."""
        job = self._new_job(priority, fair_key=key, webhook=priority == 0)
        token, expires_at = new_id(), self.now + CLAIM_SECONDS
        worker = Worker(hostname=replica, replica_id=replica, claim_timeout_seconds=int(CLAIM_SECONDS))
        wanted = Wanted(worker=worker, token=token, now=self.now, expires_at=expires_at, max_jobs=number)
        stored, handed = self._do(claims.submit_and_claim, job, wanted)
        assert stored is job
        self._expect(job)
        self._take_up(handed, replica, token, expires_at, number)
        with self.engines.engine.connect() as conn:
            for claim in handed:
                assert jobs.get(conn, self.project, "m", claim.job.id) == claim.job

    def _new_job(
        self,
        priority: int,
        *,
        fair_key: str = "",
        deadline: float | None = None,
        webhook: bool = False,
        payload: str = "{}",
        idempotency_key: str | None = None,
    ) -> Job:
        return Job(
            id=new_id(),
            project_id=self.project,
            deployment_id=self.deployment,
            model="m",
            state=JobState.PENDING,
            priority=priority,
            fair_key=fair_key,
            payload=msgspec.Raw(payload.encode()),
            deadline_at=None if deadline is None else self.now + deadline,
            idempotency_key=idempotency_key,
            webhook_url="https://example.com/" if webhook else None,
            created_at=self.now,
        )

    def _expect(self, job: Job) -> None:
        self.jobs.append(
            Expected(
                job.id,
                job.priority,
                next(self.numbers),
                fair_key=job.fair_key,
                deadline_at=job.deadline_at,
                idempotency_key=job.idempotency_key,
                has_webhook=job.webhook_url is not None,
            )
        )

    @precondition(lambda self: self._waiting() or len(self.jobs) == 0)
    @rule(replica=REPLICAS, number=st.sampled_from([1, 1, 1, 2, 5]))
    def claim(self, replica: str, number: int) -> None:
        token, expires_at = new_id(), self.now + CLAIM_SECONDS
        worker = Worker(hostname=replica, replica_id=replica, claim_timeout_seconds=int(CLAIM_SECONDS))
        wanted = Wanted(worker=worker, token=token, now=self.now, expires_at=expires_at, max_jobs=number)
        handed = self._do(claims.claim, self.deployment, wanted)
        self._take_up(handed, replica, token, expires_at, number)

    def _take_up(self, handed: list[Claim], replica: str, token: str, expires_at: float, number: int) -> None:
        """What was claimed is what may be: the highest priority, each line in its order, nothing left out."""
        for claim in handed:
            claimable = self._claimable()
            job = next(job for job in claimable if job.id == claim.job.id)
            # Which key goes first is fairness, tested elsewhere; within that, nobody is overtaken.
            assert job.priority == max(other.priority for other in claimable)
            line = [other for other in claimable if (other.priority, other.fair_key) == (job.priority, job.fair_key)]
            assert job.number == min(other.number for other in line)
            job.state, job.token, job.replica, job.expires_at = JobState.RUNNING, token, replica, expires_at
            job.last_replica = replica
            job.outcomes.append(None)
        assert len(handed) == number or not self._claimable()

    def _claimable(self) -> list[Expected]:
        capped = sum(job.fair_key == "capped" for job in self._running())
        return [job for job in self._waiting() if job.fair_key != "capped" or capped < CAP]

    @precondition(lambda self: self._running())
    @rule(data=st.data(), verb=st.sampled_from(["renew", "finish", "fail", "release", "abandon"]))
    def say_as_the_holder(self, data: st.DataObject, verb: str) -> None:
        job = data.draw(st.sampled_from(self._running()))
        self._say(verb, job, Holder(token=job.token, replica_id=job.replica))
        if verb == "renew":
            job.expires_at = self.now + CLAIM_SECONDS
        elif verb == "release":
            job.release()
        else:
            ended = {"finish": JobState.DONE, "fail": JobState.FAILED, "abandon": JobState.CANCELED}
            job.outputs = b'{"by":"holder"}' if verb == "finish" else None
            job.end_attempt(verb, ended[verb])

    @precondition(lambda self: len(self._running()) > 1)
    @rule(data=st.data(), number=st.sampled_from([0, 1, 3]))
    def take_a_turn(self, data: st.DataObject, number: int) -> None:
        """Several ends at once, a stale one among them, and a claim: as if they had been said one after the other."""
        holding = self._running()
        verbs = data.draw(
            st.lists(st.sampled_from(["finish", "fail", "release"]), min_size=len(holding), max_size=len(holding))
        )
        said = [
            Update(verb=JobVerb(verb), job_id=job.id, token=job.token, outputs=msgspec.Raw(b'{"by":"holder"}'))
            for verb, job in zip(verbs, holding, strict=True)
        ]
        said.insert(1, Update(verb=JobVerb.FINISH, job_id=holding[0].id, token="nobody's"))
        token, expires_at = new_id(), self.now + CLAIM_SECONDS
        worker = Worker(hostname="turn", replica_id="replica-1", claim_timeout_seconds=int(CLAIM_SECONDS))
        wanted = Wanted(worker=worker, token=token, now=self.now, expires_at=expires_at, max_jobs=number)
        turn = self._do(
            turns.take_turn, self.project, self.deployment, Holder(), said, wanted if number else None, self.now
        )
        assert [told.error is not None for told in turn.told] == [n == 1 for n in range(len(said))]
        for verb, job in zip(verbs, holding, strict=True):
            if verb == "release":
                job.release()
            else:
                job.outputs = b'{"by":"holder"}' if verb == "finish" else None
                job.end_attempt(verb, JobState.DONE if verb == "finish" else JobState.FAILED)
        self._take_up(turn.handed, "replica-1", token, expires_at, number)

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
    @rule(data=st.data(), grace=st.sampled_from([0.0, 20.0]))
    def cancel(self, data: st.DataObject, grace: float) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        self._do(withdrawals.cancel, self.deployment, job.id, self.now, self.now + grace)
        if job.state is JobState.PENDING:
            job.state = JobState.CANCELED
        elif job.state is JobState.RUNNING:
            job.cancel_requested = True
            job.cancel_due_at = min(job.cancel_due_at or float("inf"), self.now + grace)

    @precondition(lambda self: self._running())
    @rule(seconds=st.sampled_from([1.0, 50.0, 91.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        overdue = self._do(losses.deployments_to_reclaim, self.now)
        reclaimed = self._do(losses.reclaim, self.deployment, self.now)
        missed = self._do(withdrawals.miss, self.deployment, self.now)
        ended = [job for job in self.jobs if self._reclaim(job)]
        assert (self.deployment in overdue) == bool(ended)
        assert reclaimed.back == sum(job.state is JobState.PENDING for job in ended)
        assert missed == sum(job.state is JobState.FAILED and job.missed for job in ended)

    def _reclaim(self, job: Expected) -> bool:
        """What the reclaimer does to a job: deadlines first, then cancels, then claims that ran out."""
        late = job.deadline_at is not None and job.deadline_at <= self.now
        if job.state is JobState.RUNNING and late:
            job.end_attempt("overrun", JobState.FAILED)
        elif job.state is JobState.RUNNING and job.cancel_due_at is not None and job.cancel_due_at <= self.now:
            job.end_attempt("force", JobState.CANCELED)
        elif job.state is JobState.RUNNING and job.expires_at <= self.now:
            job.lose()
        elif job.state is JobState.PENDING and late:
            job.state, job.missed = JobState.FAILED, True
        else:
            return False
        return True

    @precondition(lambda self: self._running())
    @rule(replica=REPLICAS)
    def lose_replica(self, replica: str) -> None:
        self._do(losses.lose_replica, replica, self.now)
        for job in self._running():
            if job.replica == replica:
                job.lose()

    @precondition(lambda self: len(self._waiting()) > 6)
    @rule()
    def clear(self) -> None:
        waiting = self._waiting()
        assert self._do(withdrawals.clear, self.deployment, None, self.now) == len(waiting)
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
                running = [None] if job.state is JobState.RUNNING else []
                assert [*rows.scalars(), *running] == expected.outcomes
                told = conn.exec_driver_sql(f"SELECT attempt FROM webhooks WHERE job_id = '{job.id}'").scalars().all()
                over = expected.has_webhook and job.state in TERMINAL_STATES
                assert told == ([job.attempt] if over else [])

    @invariant()
    def every_count_is_what_counting_gives(self) -> None:
        if not self.deployment:
            return
        with self.engines.engine.connect() as conn:
            counts = queues.counts(conn, self.deployment)
            assert (counts.pending, counts.running) == (len(self._waiting()), len(self._running()))
            lines = conn.exec_driver_sql(
                "SELECT fair_key, priority, pending, running, ready FROM lines "
                f"WHERE deployment_id = '{self.deployment}'"
            )
            claimable = self._claimable()
            for key, priority, pending, running, ready in lines:
                assert pending == sum((job.fair_key, job.priority) == (key, priority) for job in self._waiting())
                assert running == sum((job.fair_key, job.priority) == (key, priority) for job in self._running())
                assert ready == any((job.fair_key, job.priority) == (key, priority) for job in claimable)

    @invariant()
    def followers_miss_nothing(self) -> None:
        """What changed since the last look is exactly what is newer than it, and reading on from there is complete."""
        if not self.deployment:
            return
        with self.engines.engine.connect() as conn:
            news = jobs.changed_since(conn, self.deployment, *self.seen, 10_000)
        for job in news:
            self.followed[job.id] = job.state
            self.seen = (job.change, job.sequence)
        assert self.followed == {job.id: job.state for job in self.jobs}

    def _waiting(self) -> list[Expected]:
        return [job for job in self.jobs if job.state is JobState.PENDING]

    def _running(self) -> list[Expected]:
        return [job for job in self.jobs if job.state is JobState.RUNNING]

    def _say(self, verb: str, job: Expected, holder: Holder) -> None:
        info: dict[str, dict[str, Any]] = {"renew": {"step": 1}, "fail": {"error": "e"}}
        said = Update(
            verb=JobVerb(verb),
            job_id=job.id,
            token=holder.token,
            info=info.get(verb, {}),
            outputs=msgspec.Raw(b'{"by":"holder"}'),
        )
        self._do(turns.update, self.project, Holder(replica_id=holder.replica_id), said, self.now)

    def _do(self, function: Callable[..., T], *args: Any) -> T:
        with self._transaction() as conn:
            return function(conn, *args)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engines.engine.connect() as conn:
            driver: Any = conn.connection.driver_connection
            self.engines.begin(driver, (), 10.0)
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
