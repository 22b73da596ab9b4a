"""Why a job waits: the reasons, the estimate's honesty, what it costs in a long queue, and the route that tells it."""

import heapq
import importlib
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.routing import Route

from factory import ADMIN_KEY, Clock, Jobs
from machineshop.api import job_status
from machineshop.api import queue as queue_api
from machineshop.api.endpoint import Api
from machineshop.api.job_view import job_view, place_view
from machineshop.front import Front
from machineshop.models import FairKey, Identity, Job, QueueCounts, Worker
from machineshop.runtime.base import Replica, ReplicaStatus
from machineshop.server import HttpServer
from machineshop.services.deployments import DeploymentService
from machineshop.services.forecast import Workers, forecast
from machineshop.services.identity import IdentityService
from machineshop.services.keyring import KeyRing
from machineshop.services.place import Places
from machineshop.services.signing import SigningService
from machineshop.services.status import Standing
from machineshop.services.waiting import Facts, Reason, explain
from machineshop.services.webhooks import WebhookService
from machineshop.states import DeploymentStatus, JobState
from machineshop.store import jobs as store_jobs
from machineshop.store import places
from machineshop.store.database import Database
from machineshop.store.moves import Holder
from machineshop.store.places import MAX_POSITION, Ahead, Pace
from machineshop.store.statement import Statement
from migrated import migrated_database, migrated_sqlite
from postgres_cluster import PostgresCluster
from queue_simulation import make_deployment, pending_job, transaction

NOW = 1_000_000.0
STARTING = Standing(DeploymentStatus.UPDATING, "0 of 1 replicas are ready; r-1 is starting.", 1, 0)
ASLEEP = Standing(
    DeploymentStatus.SCALED_TO_ZERO,
    "No replica runs while there is nothing to do; a job or a request starts one.",
    0,
    0,
)
NONE_WANTED = Standing(DeploymentStatus.SCALED_TO_ZERO, "No replica is asked for: max_replicas is 0.", 0, 0)
READY = Standing(DeploymentStatus.READY, None, 2, 2)


def facts(
    *,
    ahead: int | None = 0,
    higher: int = 0,
    running: int = 0,
    key_running: int = 0,
    key_cap: int | None = None,
    in_line: int = 0,
    replicas: Standing = READY,
    waiting_workers: int = 0,
    durations: tuple[float, ...] = (),
    done_ago: float | None = None,
    done_by_replica: bool = False,
) -> Facts:
    """Jobs that began a second ago, and nothing else that is not said."""
    return Facts(
        fair_key="acme",
        ahead=Ahead(jobs=ahead, higher_priority=higher, in_line=in_line, key_running=key_running, key_cap=key_cap),
        pace=Pace(
            counts=QueueCounts(pending=1, running=running),
            durations=durations,
            last_done_at=None if done_ago is None else NOW - done_ago,
            last_was_replicas=done_by_replica,
            claimed_at=(NOW - 1,) * running,
            key_claimed_at=(NOW - 1,) * key_running,
        ),
        replicas=replicas,
        waiting_workers=waiting_workers,
        now=NOW,
    )


@pytest.mark.parametrize(
    ("known", "reason", "message"),
    [
        (
            facts(replicas=STARTING),
            Reason.NO_REPLICA,
            "No replica is ready (Updating: 0 of 1 replicas are ready; r-1 is starting).",
        ),
        (
            facts(replicas=Standing(DeploymentStatus.UPDATING, "uv failed:\n  cause: none\n", 1, 0)),
            Reason.NO_REPLICA,
            "No replica is ready (Updating: uv failed: cause: none).",
        ),
        (
            facts(replicas=NONE_WANTED),
            Reason.NO_REPLICA,
            "No replica is ready (ScaledToZero: No replica is asked for: max_replicas is 0).",
        ),
        # Workers that are no replicas of ours work as well as any.
        (facts(replicas=NONE_WANTED, running=1), Reason.NEXT, "It is next: all workers are busy with 1 job."),
        (
            facts(replicas=NONE_WANTED, waiting_workers=1),
            Reason.NEXT,
            "It is next: a worker is about to ask for a job.",
        ),
        (
            facts(replicas=NONE_WANTED, done_ago=2),
            Reason.NEXT,
            "It is next: a worker is about to ask for a job.",
        ),
        # A replica that was just done with a job, and has ended since, takes none any more.
        (
            facts(replicas=ASLEEP, done_ago=2, done_by_replica=True),
            Reason.NO_REPLICA,
            "No replica is ready (ScaledToZero: No replica runs while there is nothing to do; a job or a request "
            "starts one).",
        ),
        (
            facts(replicas=READY, done_ago=2, done_by_replica=True),
            Reason.NEXT,
            "It is next: a worker is about to ask for a job.",
        ),
        (
            facts(replicas=STARTING, done_ago=3600),
            Reason.NO_REPLICA,
            "No replica is ready (Updating: 0 of 1 replicas are ready; r-1 is starting).",
        ),
        (facts(running=2), Reason.NEXT, "It is next: all workers are busy with 2 jobs."),
        (facts(running=1), Reason.NEXT, "It is next: a worker is about to ask for a job."),
        (
            facts(),
            Reason.NEXT,
            "It is next: 2 replicas are ready, but nobody asks for jobs (a worker has to work the queue, as sprocket "
            "does with --queue).",
        ),
        (facts(running=2, ahead=1), Reason.ALL_BUSY, "All workers are busy with 2 jobs, and 1 job goes first."),
        (facts(running=2, ahead=1200), Reason.ALL_BUSY, "All workers are busy with 2 jobs, and 1,200 jobs go first."),
        (
            facts(running=2, ahead=None),
            Reason.ALL_BUSY,
            "All workers are busy with 2 jobs, and more than 10,000 jobs go first.",
        ),
        (facts(running=2, ahead=1, higher=1), Reason.BEHIND_HIGHER_PRIORITY, "1 job of higher priority goes first."),
        (
            facts(running=2, ahead=7, higher=3),
            Reason.BEHIND_HIGHER_PRIORITY,
            "3 jobs of higher priority go first, then 4 others.",
        ),
        (
            facts(running=2, ahead=None, higher=20_000),
            Reason.BEHIND_HIGHER_PRIORITY,
            "More than 10,000 jobs of higher priority go first.",
        ),
        (
            facts(running=3, key_running=2, key_cap=2),
            Reason.KEY_AT_CAP,
            "Of the fair key 'acme' 2 jobs run, and no more may.",
        ),
        (
            facts(running=1, key_running=1, key_cap=1, ahead=9, higher=2, in_line=3),
            Reason.KEY_AT_CAP,
            "Of the fair key 'acme' 1 job runs, and no more may; 3 others go first.",
        ),
        (facts(running=2, key_running=1, key_cap=2), Reason.NEXT, "It is next: all workers are busy with 2 jobs."),
    ],
)
def test_the_reason_is_what_would_have_to_change(known: Facts, reason: Reason, message: str) -> None:
    place = explain(known)
    assert (place.reason, place.message) == (reason, message)
    assert place.position == (None if known.ahead.jobs is None else known.ahead.jobs + 1)
    assert (place.ready_replicas, place.running) == (known.replicas.ready_replicas, known.running)


HISTORY = (10.0,) * 20


def test_an_estimate_counts_what_is_left_of_the_running_jobs() -> None:
    estimate = explain(facts(running=2, ahead=3, durations=HISTORY)).estimate
    assert estimate is not None
    # Both workers end in 9 s; two of the three before it go then, and ten seconds later the third and this one.
    assert estimate.start_at == pytest.approx(NOW + 19)
    assert NOW + 18 < estimate.earliest_at < NOW + 19 < estimate.latest_at < NOW + 20
    assert estimate.from_jobs == 20


def test_a_key_with_a_cap_waits_for_its_own_jobs() -> None:
    estimate = explain(
        facts(running=2, ahead=2, key_running=1, key_cap=1, in_line=2, durations=HISTORY, replicas=READY)
    ).estimate
    assert estimate is not None
    assert estimate.start_at == pytest.approx(NOW + 29)


@pytest.mark.parametrize(
    "known",
    [
        facts(running=2, ahead=1, durations=(1.0,) * 4),
        facts(running=10, ahead=1, durations=(1.0,) * 15),
        facts(running=2, ahead=None, durations=HISTORY),
        facts(replicas=NONE_WANTED, durations=HISTORY, done_ago=3600),
        facts(durations=HISTORY, done_ago=3600),
    ],
)
def test_there_is_no_estimate_where_too_little_is_known(known: Facts) -> None:
    assert explain(known).estimate is None


LENGTHS: dict[str, Callable[[random.Random], float]] = {
    "exponential": lambda dice: dice.expovariate(1.0),
    "constant": lambda _: 1.0,
    "bimodal": lambda dice: dice.choice((0.1, 10.0)),
    "mostly short": lambda dice: 20.0 if dice.random() < 0.1 else 1.0,
}


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", LENGTHS)
def test_at_least_four_in_five_jobs_start_within_the_bounds(kind: str, workers: int) -> None:
    dice = random.Random(workers)
    inside = [is_inside for _ in range(60) for is_inside in _ask(dice, LENGTHS[kind], workers)]
    assert len(inside) > 300
    assert sum(inside) / len(inside) >= 0.8


def _ask(dice: random.Random, length: Callable[[random.Random], float], workers: int) -> Iterator[bool]:
    """Whether jobs of one backlog started when that was forecast for them, asked at random moments."""
    runs: list[tuple[float, float]] = []
    free_at = [0.0] * workers
    for _ in range(400):
        began_at = free_at[0]
        ends_at = began_at + length(dice)
        heapq.heapreplace(free_at, ends_at)
        runs.append((began_at, ends_at))
    ended = sorted((ends_at, ends_at - began_at) for began_at, ends_at in runs)
    for ahead in (0, 1, 2, 5, 20, 100):
        now = dice.uniform(ended[50][0], ended[200][0])
        durations = [seconds for ends_at, seconds in ended if ends_at <= now][-50:]
        ages = tuple(now - began_at for began_at, ends_at in runs if began_at <= now < ends_at)
        starts = [began_at for began_at, _ in runs if began_at > now]
        wait = forecast(durations, Workers(number=workers, ages_seconds=ages), ahead)
        assert wait is not None
        yield wait.earliest_seconds <= starts[ahead] - now <= wait.latest_seconds


def test_a_forecast_for_many_workers_and_a_long_line_is_quick_and_right() -> None:
    dice = random.Random(1)
    durations = [dice.uniform(5, 15) for _ in range(50)]
    workers = Workers(number=2_000, ages_seconds=tuple(dice.uniform(0, 5) for _ in range(2_000)))
    began = time.process_time()
    wait = forecast(durations, workers, 9_999)
    assert time.process_time() - began < 0.5
    assert wait is not None
    assert wait.likely_seconds == pytest.approx(9_999 * 10 / 2_000, rel=0.2)


# What the store tells.


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_ahead_are_higher_priorities_and_its_own_line_and_what_is_fair(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with transaction(migrated_database(kind, request, tmp_path)) as conn:
        project, deployment = make_deployment(conn)
        _submit(conn, project, deployment, ["a"] * 5 + ["b"] * 5, priority=0)
        _submit(conn, project, deployment, ["a", "c"], priority=3)
        _submit(conn, project, deployment, ["a"] * 3, priority=-1)
        last_of_b = _last(conn, project, deployment, "b", 0)
        # Both of the higher priority, four of its own line, and all of the other: among equals that goes first.
        assert places.ahead(conn, last_of_b) == Ahead(
            jobs=11, higher_priority=2, in_line=4, key_running=0, key_cap=None
        )
        lowest = places.ahead(conn, _last(conn, project, deployment, "a", -1))
        assert (lowest.jobs, lowest.higher_priority, lowest.in_line) == (14, 12, 2)


def test_what_is_far_back_is_not_counted_and_the_look_is_quick(tmp_path: Path) -> None:
    with transaction(migrated_sqlite(tmp_path)) as conn:
        project, deployment = make_deployment(conn)
        number = MAX_POSITION + 50
        _submit(conn, project, deployment, [""] * number, priority=0)
        first_beyond = pending_job(project, deployment, sequence=MAX_POSITION + 2)
        assert places.ahead(conn, first_beyond).jobs is None
        assert places.ahead(conn, msgspec.structs.replace(first_beyond, sequence=MAX_POSITION + 1)).jobs == MAX_POSITION


def _submit(conn: Connection, project: str, deployment: str, keys: list[str], priority: int) -> None:
    new = [pending_job(project, deployment, fair_key=key, priority=priority) for key in keys]
    store_jobs.insert(conn, new)


def _last(conn: Connection, project: str, deployment: str, key: str, priority: int) -> Job:
    query = (
        f"SELECT id FROM jobs WHERE deployment_id = '{deployment}' AND fair_key = '{key}' AND priority = {priority} "
        "ORDER BY sequence DESC LIMIT 1"
    )
    job = store_jobs.get(conn, project, "m", str(conn.exec_driver_sql(query).scalar()))
    assert job is not None
    return job


MODULES = ["attempts", "charges", "claims", "jobs", "lines", "losses", "moves", "places", "queues", "withdrawals"]
# Indexes of what is pending, running, overdue: small beside all the jobs that there have ever been.
SMALL = {"ix_jobs_running", "ix_jobs_deadline", "ix_jobs_pending"}


def _statements() -> Iterator[tuple[str, Statement]]:
    for name in MODULES:
        module = importlib.import_module(f"machineshop.store.{name}")
        for variable, value in vars(module).items():
            if isinstance(value, Statement):
                yield f"{name}.{variable}", value
            elif isinstance(value, dict):
                for key, statement in value.items():
                    if isinstance(statement, Statement):
                        yield f"{name}.{variable}[{key}]", statement


def test_no_statement_looks_through_all_jobs_of_a_queue(tmp_path: Path) -> None:
    """In SQLite, which has no idea of the numbers, so that what it chooses here it chooses anywhere."""
    with transaction(migrated_sqlite(tmp_path)) as conn:
        for name, statement in _statements():
            values = [1] * len(set(re.findall(r"\?(\d+)", statement._sqlite)))
            driver = conn.connection.driver_connection
            assert driver is not None
            for *_, plan in driver.execute(f"EXPLAIN QUERY PLAN {statement._sqlite}", values):
                found = re.match(
                    r"(SCAN|SEARCH) jobs(?: USING (?:COVERING )?(?:INDEX (\w+)|INTEGER PRIMARY KEY))?", plan
                )
                if found is None or name == "withdrawals._LAST":  # that one reads the last entry alone
                    continue
                if found[1] == "SCAN":
                    assert found[2] in SMALL, f"{name}: {plan}"
                else:
                    assert found[2] != "ix_jobs_deployment_id_sequence", f"{name}: {plan}"


def test_lines_are_found_by_their_indexes(tmp_path: Path) -> None:
    with transaction(migrated_sqlite(tmp_path)) as conn:
        for name, statement in _statements():
            values = [1] * len(set(re.findall(r"\?(\d+)", statement._sqlite)))
            driver = conn.connection.driver_connection
            assert driver is not None
            for *_, plan in driver.execute(f"EXPLAIN QUERY PLAN {statement._sqlite}", values):
                assert not re.match(r"SCAN (lines|l)\b", plan), f"{name}: {plan}"


# The whole, over the services.


class Seen:
    """Stands for the runtime: what `observe` gives."""

    def __init__(self) -> None:
        self.replicas: list[Replica] = []
        self.asked: set[str | None] = set()
        """The deployments whose replicas were looked for; None: all."""

    async def observe(self, deployment_id: str | None = None) -> list[Replica]:
        self.asked.add(deployment_id)
        return [one for one in self.replicas if deployment_id in (None, one.deployment_id)]

    def add(self, jobs: Jobs, *, ready_since: float | None) -> None:
        self.replicas.append(
            Replica(
                id=f"r-{len(self.replicas)}",
                deployment_id=jobs.deployment.id,
                revision_id=jobs.deployment.revision_id,
                image="i",
                status=ReplicaStatus.RUNNING,
                created_at=0,
                port=1,
                ready_since=ready_since,
                draining=False,
            )
        )


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def finder(database: Database, deployments: DeploymentService, seen: Seen, jobs: Jobs, clock: Clock) -> Places:
    return Places(database, deployments, seen, jobs.queue.dispatcher.waiters, clock)


async def test_a_job_is_told_its_place_from_the_first_to_its_start(
    finder: Places, seen: Seen, jobs: Jobs, clock: Clock
) -> None:
    first, second = await jobs.pending(), await jobs.get((await jobs.pending()).id)
    place = await finder.find(second)
    assert (place.reason, place.position, place.ready_replicas) == (Reason.NO_REPLICA, 2, 0)
    seen.add(jobs, ready_since=1.0)
    claim = await jobs.claim()
    assert claim is not None
    assert claim.job.id == first.id
    place = await finder.find(second)
    assert (place.reason, place.position, place.ready_replicas, place.running) == (Reason.NEXT, 1, 1, 1)
    assert place.estimate is None
    await jobs.finish(first.id, Holder(token=claim.token))
    for _ in range(6):  # enough to say something
        taken = await jobs.claim() or await jobs.running()
        clock.now += 4.0
        await jobs.finish(taken.job.id, Holder(token=taken.token))
    await jobs.running()
    clock.now += 1.0
    waiting = [await jobs.get((await jobs.pending()).id) for _ in range(3)]
    place = await finder.find(waiting[2])
    assert (place.reason, place.position) == (Reason.ALL_BUSY, 3)
    view = place_view(place)
    assert view["estimate"]["from_jobs"] == 7
    assert place.estimate is not None
    assert place.estimate.start_at - clock.now == pytest.approx(11, abs=3)
    assert (await jobs.get(waiting[2].id)).state is JobState.PENDING
    assert seen.asked == {jobs.deployment.id}, "the replicas of others are not looked at"


@pytest.mark.parametrize(
    ("worker", "reason"),
    [(Worker(hostname="h", replica_id="r-gone"), Reason.NO_REPLICA), (Worker(hostname="outside"), Reason.NEXT)],
    ids=["a replica", "a worker from outside"],
)
async def test_a_replica_that_has_ended_since_its_last_job_is_not_counted_on(
    finder: Places, jobs: Jobs, worker: Worker, reason: Reason
) -> None:
    claim = await jobs.running(worker)
    await jobs.finish(claim.job.id, Holder(token=claim.token))
    assert (await finder.find(await jobs.pending())).reason is reason


async def test_a_key_at_its_cap_is_told_so(finder: Places, jobs: Jobs) -> None:
    await jobs.queue.change_settings(jobs.project_id, jobs.deployment.id, {}, {"acme": FairKey(max_running=1)})
    await jobs.pending(fair_key="acme")
    second = await jobs.pending(fair_key="acme")
    assert await jobs.claim() is not None
    place = await finder.find(second)
    assert (place.reason, place.message) == (
        Reason.KEY_AT_CAP,
        "Of the fair key 'acme' 1 job runs, and no more may.",
    )
    urgent = await jobs.pending(priority=1)
    other = await jobs.pending()
    assert (await finder.find(urgent)).reason is Reason.NEXT
    assert (await finder.find(other)).reason is Reason.BEHIND_HIGHER_PRIORITY


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_status_of_a_job_says_it_while_it_waits(
    identity: IdentityService,
    admin: Identity,
    finder: Places,
    database: Database,
    jobs: Jobs,
    keys: KeyRing,
    guarded: bool,
) -> None:
    """With a guard, the answer for a job that waits goes through that: another server may be the one that knows."""
    passed: list[str] = []

    def guard(routes: Iterable[Route]) -> list[Route]:
        passed.append("guarded")
        return list(routes)

    api = Api(identity)
    webhooks = WebhookService(database, SigningService(database, keys), job_view)
    status = job_status.handler(api, jobs.queue, finder, webhooks, guard if guarded else None)
    routes = queue_api.routes(api, jobs.queue, status)
    http = HttpServer("127.0.0.1", 0)
    await http.start(Front(Starlette(routes=routes)))
    job = await jobs.pending()
    params = {"model": jobs.deployment.name, "request_id": job.id}
    async with aiohttp.ClientSession(http.url(), headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as session:
        async with session.get("/v1/queue/status", params=params) as answer:
            assert (await answer.json())["queue"] == {
                "position": 1,
                "reason": "no_replica",
                "message": "No replica is ready (Updating: 0 of 1 replicas are ready; the next one is about to start).",
                "ready_replicas": 0,
                "running": 0,
                "estimate": None,
            }
        assert await jobs.claim() is not None
        async with session.get("/v1/queue/status", params=params) as answer:
            told = await answer.json()
            assert (told["status"], told["queue"]) == ("running", None)
    await http.stop()
    assert passed == ["guarded"] * guarded


def test_postgres_finds_what_is_pending_without_reading_what_is_over(postgres: PostgresCluster) -> None:
    """Where most jobs are over, and those are the first: the planner must not look for a pending one among them."""
    with transaction(postgres.create_database()) as conn:
        project, deployment = make_deployment(conn)
        execute = conn.exec_driver_sql
        execute(
            "INSERT INTO jobs (id, project_id, deployment_id, model, state, priority, fair_key, payload, outputs, "
            "info, retries, releases, attempt, charged_seconds, has_files, cancel_requested, change, created_at, "
            f"done_at) SELECT 'j' || i::text, '{project}', '{deployment}', 'm', "
            "CASE WHEN i > 20000 THEN 'pending' ELSE 'done' END, 0, '', '{}', '{}', '{}', 0, 0, 0, 0, 0, 0, i, 1, "
            "CASE WHEN i > 20000 THEN NULL ELSE 1 END "
            "FROM generate_series(1, 40000) AS n(i)"
        )
        execute("ANALYZE jobs")
        values = {"deployment_id": deployment, "fair_key": "", "priority": 0, "number": 10, "sequence": 20_005}
        values |= {"limit": 10_001}
        for name, statement in _statements():
            if name in {"claims._CLAIM_ONE", "claims._CLAIM_MANY", "places._IN_LINE"}:
                names = re.findall(r"%\((\w+)\)s", statement._postgres)
                driver = conn.connection.driver_connection
                assert driver is not None
                filled = dict.fromkeys(names, 1) | {"token": "t", "hostname": "h", "replica_id": "r"} | values
                plan = "\n".join(row for (row,) in driver.execute(f"EXPLAIN {statement._postgres}", filled))
                assert "ix_jobs_pending" in plan, f"{name}: {plan}"
                assert "Seq Scan on jobs" not in plan, f"{name}: {plan}"
