"""A queue worked in simulated time: the real store functions on a real database, with clock and workers of its own."""

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection

from machineshop.ids import new_id
from machineshop.models import Claim, FairKey, Job, Worker
from machineshop.states import JobState, JobVerb
from machineshop.store import claims, jobs, queues, turns
from machineshop.store.claims import Wanted
from machineshop.store.engines import Engines
from machineshop.store.moves import Holder
from machineshop.store.schema import migrate
from machineshop.store.turns import Update

# As sprocket does it.
RENEW_SECONDS = 30.0
CLAIM_SECONDS = 90
# How many jobs a backlogged key always has waiting, so that it never runs out between two looks.
BACKLOG = 40

Lengths = Callable[[], float]


def constant(seconds: float) -> Lengths:
    return lambda: seconds


def exponential(mean_seconds: float, seed: int) -> Lengths:
    dice = random.Random(seed)
    return lambda: dice.expovariate(1 / mean_seconds)


@dataclass
class Key:
    """One who submits."""

    name: str
    lengths: Lengths
    weight: float = 1.0
    cap: int | None = None
    begins_at: float = 0.0
    backlogged: bool = True
    waiting: int = 0


@dataclass(frozen=True)
class Run:
    """A job that was worked."""

    key: str
    sequence: int
    began_at: float
    ends_at: float


@contextmanager
def transaction(url: str) -> Iterator[Connection]:
    """One transaction on a new database, which is taken back: nothing here is about disks."""
    migrate(url)
    engines = Engines(url)
    try:
        with engines.engine.connect() as conn:
            driver: Any = conn.connection.driver_connection
            engines.begin(driver, (), 10.0)
            yield conn
            driver.execute("ROLLBACK")
    finally:
        engines.close()


def make_deployment(conn: Connection) -> tuple[str, str]:
    """The ids of a project and of a deployment with an empty queue."""
    project, deployment, organization = new_id(), new_id(), new_id()
    execute = conn.exec_driver_sql
    execute(f"INSERT INTO organizations VALUES ('{organization}', 'o', '{organization}', 1)")
    execute(
        "INSERT INTO projects (id, organization_id, name, slug, created_at) "
        f"VALUES ('{project}', '{organization}', 'p', '{project}', 1)"
    )
    execute(
        "INSERT INTO deployments (id, project_id, name, config, revision_id, revision_number, created_at, updated_at) "
        f"VALUES ('{deployment}', '{project}', 'm', '{{}}', 'r', 1, 1, 1)"
    )
    queues.create(conn, deployment)
    return project, deployment


def pending_job(project: str, deployment: str, **fields: Any) -> Job:
    return Job(
        id=new_id(),
        project_id=project,
        deployment_id=deployment,
        model="m",
        state=JobState.PENDING,
        payload=msgspec.Raw(b"{}"),
        **{"priority": 0, "created_at": 0.0, **fields},
    )


def say(conn: Connection, project: str, verb: JobVerb, job_id: str, token: str, now: float) -> None:
    """What a worker says of a job."""
    turns.update(conn, project, Holder(), Update(verb=verb, job_id=job_id, token=token), now)


class Simulation:
    """Workers that take the next job as soon as they are done with one, and keys that submit."""

    def __init__(
        self, conn: Connection, keys: Sequence[Key], workers: int, *, max_jobs: int = 1, renews: bool = True
    ) -> None:
        self.conn = conn
        self.project, self.deployment = make_deployment(conn)
        self.keys = {key.name: key for key in keys}
        self.now = 0.0
        self.runs: list[Run] = []
        self.running: Counter[str] = Counter()
        self.most_running: Counter[str] = Counter()
        self.workers = workers
        self._max_jobs = max_jobs
        self._renews = renews
        self._idle = set(range(workers))
        self._batches: Counter[int] = Counter()
        self._lengths: dict[str, float] = {}
        self._events: list[tuple[float, int, Callable[[], bool]]] = []
        self._numbers = itertools.count()
        named: dict[str, FairKey | None] = {
            key.name: FairKey(weight=key.weight, max_running=key.cap) for key in keys if key.name
        }
        queues.change_settings(conn, self.deployment, {}, named)
        for key in keys:
            if key.backlogged:
                self.at(key.begins_at, partial(self.submit, key, BACKLOG))

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something done at a time."""

        def act() -> bool:
            what()
            return True

        self._push(when, act)

    def every(self, seconds: float, what: Callable[[], None]) -> None:
        """Have something done again and again."""

        def again() -> None:
            what()
            self.at(self.now + seconds, again)

        self.at(self.now + seconds, again)

    def submit(self, key: Key, number: int, priority: int = 0) -> None:
        """Add jobs of a key."""
        new = [
            pending_job(self.project, self.deployment, fair_key=key.name, priority=priority, created_at=self.now)
            for _ in range(number)
        ]
        self._lengths |= {job.id: key.lengths() for job in new}
        jobs.insert(self.conn, new)
        key.waiting += number

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            self.now = self._events[0][0]
            may_claim = False
            while self._events and self._events[0][0] == self.now:  # all at once, as they would come
                may_claim |= heapq.heappop(self._events)[2]()
            if may_claim:
                self._claim_all()
        self.now = until

    def shares(self, begin: float, end: float) -> dict[str, float]:
        """Which part of the workers' time each key had in between."""
        had = dict.fromkeys(self.keys, 0.0)
        for run in self.runs:
            had[run.key] += max(0.0, min(run.ends_at, end) - max(run.began_at, begin))
        return {name: seconds / sum(had.values()) for name, seconds in had.items()}

    def longest_pause(self, name: str, begin: float, end: float) -> float:
        """The longest time between two starts of a key's jobs in between."""
        starts = [begin, *sorted(run.began_at for run in self.runs if run.key == name), end]
        starts = [at for at in starts if begin <= at <= end]
        return max(after - before for before, after in itertools.pairwise(starts))

    def _claim_all(self) -> None:
        for name in sorted(self._idle):
            if name >= self.workers:
                continue  # it has been taken away
            worker = Worker(hostname=f"w{name}", claim_timeout_seconds=CLAIM_SECONDS if self._renews else None)
            wanted = Wanted(
                worker=worker, token=new_id(), now=self.now, expires_at=self.now + 1e9, max_jobs=self._max_jobs
            )
            claimed = claims.claim(self.conn, self.deployment, wanted)
            if not claimed:
                return
            self._idle.discard(name)
            self._batches[name] = len(claimed)
            for claim in claimed:
                self._begin(name, claim)

    def _begin(self, worker: int, claim: Claim) -> None:
        key = self.keys[claim.job.fair_key]
        ends_at = self.now + self._lengths.pop(claim.job.id)
        self.runs.append(Run(key.name, claim.job.sequence, self.now, ends_at))
        key.waiting -= 1
        self.running[key.name] += 1
        self.most_running[key.name] = max(self.most_running[key.name], self.running[key.name])
        self._push(ends_at, lambda: self._end(worker, claim))
        if self._renews:
            self._renew_later(claim, ends_at)
        if key.backlogged and key.waiting < BACKLOG // 2:
            self.submit(key, BACKLOG - key.waiting)

    def _renew_later(self, claim: Claim, ends_at: float) -> None:
        def renew() -> bool:
            say(self.conn, self.project, JobVerb.RENEW, claim.job.id, claim.token, self.now)
            self._renew_later(claim, ends_at)
            return False

        if self.now + RENEW_SECONDS < ends_at:
            self._push(self.now + RENEW_SECONDS, renew)

    def _end(self, worker: int, claim: Claim) -> bool:
        say(self.conn, self.project, JobVerb.FINISH, claim.job.id, claim.token, self.now)
        self.running[claim.job.fair_key] -= 1
        self._batches[worker] -= 1
        if not self._batches[worker]:
            self._idle.add(worker)
        return True

    def _push(self, when: float, what: Callable[[], bool]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), what))
