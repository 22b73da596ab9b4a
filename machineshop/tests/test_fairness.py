"""Fairness: whose job is next, with the real store functions in simulated time."""

import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from machineshop.ids import new_id
from machineshop.models import FairKey, Job, Worker
from machineshop.states import JobVerb
from machineshop.store import claims, jobs, lines, losses, places, queues, withdrawals
from machineshop.store.claims import Wanted
from migrated import migrated_sqlite
from queue_simulation import Key, Simulation, constant, exponential, make_deployment, pending_job, say, transaction

LENGTHS = {"short": 1.0, "middle": 10.0, "long": 100.0}
EQUAL, UNEQUAL = (1.0, 1.0, 1.0), (1.0, 2.0, 5.0)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    with transaction(migrated_sqlite(tmp_path)) as conn:
        yield conn


@pytest.fixture
def postgres_conn(postgres_url: str) -> Iterator[Connection]:
    with transaction(postgres_url) as conn:
        yield conn


def backlogged(weights: tuple[float, ...], *, same: bool = True) -> list[Key]:
    """Keys whose jobs differ by a factor of 100."""
    return [
        Key(name, constant(mean) if same else exponential(mean, seed), weight)
        for seed, ((name, mean), weight) in enumerate(zip(LENGTHS.items(), weights, strict=True))
    ]


def assert_fair(simulation: Simulation, begin: float, end: float) -> None:
    """Each key has its weight's share of the workers' time within 5 %, and none waits longer than the bound."""
    keys, total = simulation.keys, sum(key.weight for key in simulation.keys.values())
    for name, share in simulation.shares(begin, end).items():
        assert share == pytest.approx(keys[name].weight / total, rel=0.05), simulation.shares(begin, end)
        assert simulation.longest_pause(name, begin, end) <= longest_wait(simulation, name)


def longest_wait(simulation: Simulation, name: str) -> float:
    """How long a backlogged key waits for its next start at most.

    While it waits, each other key may catch up with what this one's last job took, by its weight, and go ahead by one
    job more. All workers work that off, once those jobs have ended which run already and may be longer or shorter than
    they were charged.
    """
    longest = {key: max(run.ends_at - run.began_at for run in simulation.runs if run.key == key) for key in LENGTHS}
    keys = simulation.keys
    others = [key for key in keys.values() if key.name != name]
    to_catch_up = sum(key.weight for key in others) * longest[name] / keys[name].weight
    one_more = sum(longest[key.name] for key in others)
    return (to_catch_up + one_more) / simulation.workers + 2 * max(longest.values())


@pytest.mark.parametrize("weights", [EQUAL, UNEQUAL])
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_backlogged_keys_share_the_workers_by_their_weights(
    conn: Connection, workers: int, weights: tuple[float, ...]
) -> None:
    simulation = Simulation(conn, backlogged(weights), workers)
    # Nothing is known of their lengths at first; a few of the long ones have to end before anything is.
    begin, end = 300.0, 300.0 + 12_000.0 / workers
    simulation.run(end)
    assert_fair(simulation, begin, end)


@pytest.mark.parametrize("workers", [1, 4])
def test_lengths_that_vary_are_charged_as_they_were(conn: Connection, workers: int) -> None:
    simulation = Simulation(conn, backlogged(UNEQUAL, same=False), workers)
    end = 300.0 + 30_000.0 / workers
    simulation.run(end)
    assert_fair(simulation, 300.0, end)


def test_the_same_on_postgres(postgres_conn: Connection) -> None:
    simulation = Simulation(postgres_conn, backlogged(UNEQUAL), 4)
    simulation.run(1_000.0)
    assert_fair(simulation, 200.0, 1_000.0)


def test_jobs_without_a_key_are_one_key_among_the_others(conn: Connection) -> None:
    keys = [Key("", constant(1)), Key("a", constant(1)), Key("b", constant(5))]
    simulation = Simulation(conn, keys, 4)
    simulation.run(300.0)
    for share in simulation.shares(50.0, 300.0).values():
        assert share == pytest.approx(1 / 3, rel=0.05)


@pytest.mark.parametrize("other_seconds", [1.0, 100.0])
def test_a_key_that_comes_late_has_its_share_at_once_and_no_more(conn: Connection, other_seconds: float) -> None:
    late = Key("late", constant(1), begins_at=1_000.0)
    simulation = Simulation(conn, [late, Key("early", constant(other_seconds))], 4)
    simulation.run(2_000.0)
    # As soon as the jobs that were running when it came have ended.
    begin = 1_000.0 + other_seconds
    assert simulation.shares(begin, begin + 4 * other_seconds)["late"] == pytest.approx(0.5, abs=0.15)
    assert simulation.shares(begin, 2_000.0)["late"] == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("renews", [True, False])
def test_what_ran_before_a_key_came_is_no_debt_to_it(conn: Connection, renews: bool) -> None:
    """Jobs that nobody knew to be long, nearly over when another key comes."""
    late = Key("late", constant(1), begins_at=990.0)
    simulation = Simulation(conn, [late, Key("early", constant(1_000))], 16, renews=renews)

    def look() -> None:  # as the control loop does: for claims that nobody renews
        losses.reclaim(conn, simulation.deployment, simulation.now)

    simulation.every(5.0, look)
    simulation.run(2_000.0)
    assert simulation.shares(1_000.0, 2_000.0)["late"] == pytest.approx(0.5, rel=0.1)


def test_a_key_with_few_jobs_at_a_time_saves_nothing_up(conn: Connection) -> None:
    rare, busy = Key("rare", exponential(1.0, 1), backlogged=False), Key("busy", constant(1))
    simulation = Simulation(conn, [rare, busy], 16)

    def keep_two() -> None:
        missing = 2 - rare.waiting - simulation.running["rare"]
        if simulation.now < 300 and missing > 0:
            simulation.submit(rare, missing)

    def burst() -> None:
        rare.backlogged = True
        simulation.submit(rare, 40)

    simulation.every(0.1, keep_two)
    simulation.at(300.0, burst)
    simulation.run(340.0)
    assert simulation.shares(50.0, 300.0)["rare"] < 0.13
    assert simulation.shares(302.0, 322.0)["rare"] == pytest.approx(0.5, rel=0.1)


def test_many_keys_that_come_one_after_the_other_are_served_in_that_order(conn: Connection) -> None:
    """One worker, and each second three new keys with one job each: nobody gets before those who came earlier."""
    keys = [Key(f"k{number}", constant(1.0), backlogged=False) for number in range(60)]
    simulation = Simulation(conn, [*keys, Key("busy", constant(1.0))], 1)
    for number, key in enumerate(keys):
        simulation.at(10.0 + number / 3, partial(simulation.submit, key, 1))
    simulation.run(200.0)
    order = [run.key for run in simulation.runs if run.key != "busy"]
    assert order == [key.name for key in keys]


def test_a_capped_key_never_runs_more_and_others_use_the_rest(conn: Connection) -> None:
    simulation = Simulation(conn, [Key("capped", constant(1), cap=3), Key("free", constant(7))], 16)
    simulation.run(400.0)
    assert simulation.most_running["capped"] == 3
    assert simulation.shares(50.0, 400.0)["capped"] == pytest.approx(3 / 16, rel=0.05)
    assert simulation.running.total() == 16


def test_a_capped_key_holds_no_newcomer_back_and_lets_none_ahead(conn: Connection) -> None:
    keys = [Key("capped", constant(1), cap=1), Key("a", constant(1)), Key("b", constant(1), begins_at=200.0)]
    simulation = Simulation(conn, keys, 16)
    simulation.run(230.0)
    shares = simulation.shares(202.0, 222.0)
    assert shares["a"] == pytest.approx(shares["b"], rel=0.1)


@pytest.mark.parametrize("change", ["the cap is lifted", "most workers go"])
def test_a_key_that_was_at_its_cap_for_long_is_owed_nothing(conn: Connection, change: str) -> None:
    simulation = Simulation(conn, [Key("capped", constant(1), cap=4), Key("free", constant(1))], 16)

    def act() -> None:
        if change == "most workers go":
            simulation.workers = 4
        else:
            queues.change_settings(conn, simulation.deployment, {}, {"capped": FairKey()})

    simulation.at(200.0, act)
    simulation.run(260.0)
    assert simulation.shares(205.0, 260.0)["capped"] == pytest.approx(0.5, rel=0.05)


def test_a_cap_does_not_cost_a_key_its_share(conn: Connection) -> None:
    """Its jobs are a hundred times shorter than those beside which it waits for its only place."""
    simulation = Simulation(conn, [Key("capped", constant(1), cap=1), Key("free", constant(100))], 2)
    simulation.run(2_000.0)
    assert simulation.shares(200.0, 2_000.0)["capped"] == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("key", ["", "acme"])
@pytest.mark.parametrize("max_jobs", [1, 3, 10])
def test_one_key_or_none_is_plain_order_of_submission(conn: Connection, key: str, max_jobs: int) -> None:
    simulation = Simulation(conn, [Key(key, exponential(1.0, 5))], 4, max_jobs=max_jobs)
    simulation.run(60.0)
    order = [run.sequence for run in simulation.runs]
    assert len(order) > 100
    assert order == sorted(order)


def test_a_batch_holds_what_single_claims_would_have_given(conn: Connection) -> None:
    """Two keys with the same lengths: each batch is split between them."""
    simulation = Simulation(conn, [Key("a", constant(1)), Key("b", constant(1))], 2, max_jobs=10)
    simulation.run(30.0)
    for begin in range(5, 25, 5):
        batch = Counter(run.key for run in simulation.runs if begin <= run.began_at < begin + 1)
        assert abs(batch["a"] - batch["b"]) <= 2


def test_the_position_is_the_number_of_claims_until_then(conn: Connection) -> None:
    """Random lines; then claims, none of which ends, until the job is taken."""
    dice = random.Random(11)
    for _ in range(25):
        project, deployment = make_deployment(conn)
        waiting: list[Job] = []
        for _ in range(dice.randrange(1, 6)):
            number, name = dice.randrange(1, 9), dice.choice(["", "a", "b", "c"])
            new = [
                pending_job(project, deployment, fair_key=name, priority=dice.choice([0, 0, 0, 1]))
                for _ in range(number)
            ]
            jobs.insert(conn, new)
            waiting += new
            if dice.random() < 0.5:  # some of it has run, and lines have come to different places
                for claim in _claim(conn, deployment, dice.randrange(1, 4)):
                    waiting = [job for job in waiting if job.id != claim[0]]
                    if dice.random() < 0.7:
                        say(conn, project, JobVerb.FINISH, *claim, dice.choice([1.0, 2.0, 8.0]))
        if not waiting:
            continue
        job = jobs.get(conn, project, "m", dice.choice(waiting).id)
        assert job is not None
        ahead = places.ahead(conn, job).jobs
        assert ahead is not None
        order = [job_id for _ in waiting for job_id, _ in _claim(conn, deployment, 1)]
        assert order.index(job.id) == pytest.approx(ahead, abs=1)  # sums of charges, added up in another order


def _claim(conn: Connection, deployment: str, number: int) -> list[tuple[str, str]]:
    wanted = Wanted(
        worker=Worker(hostname="w", claim_timeout_seconds=90),
        token=new_id(),
        now=0.0,
        expires_at=1e9,
        max_jobs=number,
    )
    return [(claim.job.id, claim.token) for claim in claims.claim(conn, deployment, wanted)]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "claim", "claim", "finish", "finish", "release", "lose", "cancel", "cap", "clean"]),
        st.integers(0, 5),
    ),
    min_size=10,
    max_size=60,
)


@given(steps=STEPS, cap=st.sampled_from([None, 1, 2]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_counts_are_what_counting_gives(conn: Connection, steps: list[tuple[str, int]], cap: int | None) -> None:
    walk(conn, steps, cap)


@given(steps=STEPS, cap=st.sampled_from([None, 1, 2]))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_counts_are_what_counting_gives_on_postgres(
    postgres_conn: Connection, steps: list[tuple[str, int]], cap: int | None
) -> None:
    walk(postgres_conn, steps, cap)


def walk(conn: Connection, steps: list[tuple[str, int]], cap: int | None) -> None:
    """Do one thing after the other in a queue of its own, and count after each."""
    project, deployment = make_deployment(conn)
    queues.change_settings(conn, deployment, {"max_running_per_key": cap}, {})
    held: list[tuple[str, str]] = []
    now = 0.0
    for what, number in steps:
        now += 1.0
        key, priority = ["", "a", "b"][number % 3], number // 3
        match what:
            case "submit":
                new = [pending_job(project, deployment, fair_key=key, priority=priority) for _ in range(number + 1)]
                jobs.insert(conn, new)
            case "claim":
                held += _claim(conn, deployment, number + 1)
            case "finish" | "release" if held:
                say(conn, project, JobVerb(what), *held.pop(number % len(held)), now)
            case "lose" if held:
                losses.reclaim(conn, deployment, 2e9)
                held.clear()
            case "cancel":
                _cancel_one(conn, deployment, number, now)
            case "cap":
                queues.change_settings(conn, deployment, {}, {"a": FairKey(max_running=number + 1)})
            case "clean":
                lines.remove_idle(conn, deployment)
        _assert_counted(conn, deployment)


def _cancel_one(conn: Connection, deployment: str, number: int, now: float) -> None:
    query = f"SELECT id FROM jobs WHERE deployment_id = '{deployment}' AND state = 'pending' ORDER BY sequence"
    waiting = list(conn.exec_driver_sql(query).scalars())
    if waiting:
        withdrawals.cancel(conn, deployment, waiting[number % len(waiting)], now, now)


def _assert_counted(conn: Connection, deployment: str) -> None:
    def rows(query: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in conn.exec_driver_sql(query.replace("OURS", f"deployment_id = '{deployment}'"))]

    counted = rows(
        "SELECT fair_key, priority, sum(CASE WHEN state = 'pending' THEN 1 ELSE 0 END), "
        "sum(CASE WHEN state = 'running' THEN 1 ELSE 0 END) FROM jobs "
        "WHERE OURS AND state IN ('pending', 'running') GROUP BY fair_key, priority ORDER BY fair_key, priority"
    )
    kept = rows("SELECT fair_key, priority, pending, running FROM lines WHERE OURS AND pending + running > 0")
    assert sorted(kept) == sorted(counted)
    (totals,) = rows("SELECT pending, running FROM queues WHERE OURS")
    assert totals == (sum(int(str(row[2])) for row in counted), sum(int(str(row[3])) for row in counted))
    # A line may be claimed from where it has a job, and its key is under its cap: never above it.
    by_key: Counter[object] = Counter()
    for row in counted:
        by_key[row[0]] += int(str(row[3]))
    for name, pending, ready, cap in rows("SELECT fair_key, pending, ready, max_running FROM lines WHERE OURS"):
        has_room = cap is None or by_key[name] < int(str(cap))
        assert ready == int(int(str(pending)) > 0 and has_room)
