"""Why a job waits: the reasons, in words, and the estimate."""

import pytest

from machineshop.models import QueueCounts
from machineshop.services.status import Standing
from machineshop.services.waiting import Facts, Reason, explain
from machineshop.states import DeploymentStatus
from machineshop.store.places import Ahead, Pace

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
