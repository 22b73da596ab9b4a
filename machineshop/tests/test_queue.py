"""The queue's promises: order, hand-over, fencing, retries, and nothing handed to who has hung up."""

import asyncio
import sqlite3
from collections.abc import Callable

import msgspec
import pytest
from sqlalchemy import select

from factory import WORKER, Clock, Jobs, eventually, never_disconnected
from machineshop.errors import InvalidRequest, NotFound, StaleAttempt, StoreUnavailable
from machineshop.ids import new_id
from machineshop.models import Claim, Worker
from machineshop.services.queue import QueueService
from machineshop.states import JobState, JobVerb
from machineshop.store import jobs as store_jobs
from machineshop.store.database import Database
from machineshop.store.moves import Holder
from machineshop.store.tables import attempts
from machineshop.store.turns import Update
from machineshop.store.write import Write

RESULT = b'{"answer": 42}'
# Commits on the event loop, which nobody can on a database that others use as well.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
REPLICA_1 = Worker(hostname="one", replica_id="replica-1", claim_timeout_seconds=90)
REPLICA_2 = Worker(hostname="two", replica_id="replica-2", claim_timeout_seconds=90)


async def test_jobs_come_in_order_of_priority_then_of_submission(jobs: Jobs) -> None:
    first, urgent, second = await jobs.pending(), await jobs.pending(priority=5), await jobs.pending()
    low = await jobs.pending(priority=-1)
    order = [claim.job.id for claim in [await jobs.claim() for _ in range(4)] if claim]
    assert order == [urgent.id, first.id, second.id, low.id]


async def test_a_waiting_worker_is_handed_the_job_at_once(jobs: Jobs) -> None:
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected))
    await eventually(jobs.polls)
    job = await jobs.pending()
    (claim,) = await poll
    assert (claim.job.id, claim.job.state, claim.job.attempt) == (job.id, JobState.RUNNING, 1)


async def test_an_answer_that_cannot_be_made_spoils_no_submit(jobs: Jobs) -> None:
    def answer(_claims: list[Claim]) -> bool:
        raise ValueError("no such answer")

    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected, answer=answer))
    await eventually(jobs.polls)
    async with asyncio.timeout(60):
        submitted = await asyncio.gather(*[jobs.pending() for _ in range(3)])
        (claim,) = await poll
    assert claim.job.id in {job.id for job in submitted}


async def test_a_poll_ends_empty_when_nothing_comes(jobs: Jobs) -> None:
    assert await jobs.work.retrieve(jobs.deployment, WORKER, 0.01, never_disconnected) == []
    job = await jobs.pending()  # nobody waits any longer
    claim = await jobs.claim()
    assert claim is not None
    assert claim.job.id == job.id


async def test_many_workers_and_jobs_lose_no_wake_up(jobs: Jobs) -> None:
    async def work() -> list[str]:
        done = []
        while claims := await jobs.work.retrieve(jobs.deployment, WORKER, 2, never_disconnected):
            (claim,) = claims
            await jobs.finish(claim.job.id, Holder(token=claim.token), RESULT)
            done.append(claim.job.id)
        return done

    workers = [asyncio.create_task(work()) for _ in range(8)]
    submitted = [job.id for job in await asyncio.gather(*[jobs.pending() for _ in range(200)])]
    worked = [job_id for worker in workers for job_id in await worker]
    assert sorted(worked) == sorted(submitted)


async def test_a_worker_that_hung_up_is_handed_nothing(jobs: Jobs) -> None:
    hung_up = asyncio.Event()

    async def disconnected() -> None:
        await hung_up.wait()

    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, disconnected))
    await eventually(jobs.polls)
    hung_up.set()
    job = await jobs.pending()
    assert await poll == []
    job_now = await jobs.get(job.id)
    async with asyncio.timeout(60):
        while job_now.state is not JobState.PENDING:
            job_now = await jobs.get(job.id)
    assert job_now.retries == 0


@pytest.mark.parametrize("sent", [True, False])
async def test_a_worker_that_waits_is_answered_with_its_job_at_once_or_when_that_cannot_be(
    jobs: Jobs, sent: bool
) -> None:
    answered: list[Claim] = []
    hung_up = asyncio.Event()

    def answer(claims: list[Claim]) -> bool:
        answered.extend(claims)
        hung_up.set()  # an answer that is on its way ends the wait for the connection's end as well
        return sent

    async def disconnected() -> None:
        await hung_up.wait()

    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, disconnected, answer=answer))
    await eventually(jobs.polls)
    job = await jobs.pending()
    claims = await poll
    assert [claim.job.id for claim in answered] == [job.id]
    if sent:
        assert claims == answered
        await jobs.finish(job.id, Holder(token=claims[0].token), RESULT)
        assert (await jobs.get(job.id)).state is JobState.DONE
    else:  # it has hung up
        assert claims == []
        async with asyncio.timeout(60):
            while (await jobs.get(job.id)).state is not JobState.PENDING:
                await asyncio.sleep(0.01)


@pytest.fixture
def commits_fail(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Have the next so many commits fail as on a full disk, and something done at the first of them."""
    engines = database._writer._engines
    commit = engines.commit

    def fail(number: int, at_the_first: Callable[[], None] = lambda: None) -> None:
        def failing(driver: object, topics: set[str]) -> None:
            nonlocal number
            number -= 1
            if number == 0:
                monkeypatch.setattr(engines, "commit", commit)
            at_the_first()
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(engines, "commit", failing)

    return fail


@on_sqlite
async def test_a_job_that_was_handed_over_and_then_not_stored_is_nobodys(
    jobs: Jobs, commits_fail: Callable[..., None]
) -> None:
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected))
    await eventually(jobs.polls)
    commits_fail(2)
    with pytest.raises(StoreUnavailable):
        await jobs.pending()
    (claim,) = await poll
    with pytest.raises(NotFound):
        await jobs.finish(claim.job.id, Holder(token=claim.token), RESULT)
    later = await jobs.pending()
    taken = await jobs.claim()
    assert taken is not None
    assert taken.job.id == later.id


@on_sqlite
async def test_a_job_that_was_handed_over_and_stored_at_the_second_try_is_its_workers(
    jobs: Jobs, commits_fail: Callable[..., None]
) -> None:
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected))
    await eventually(jobs.polls)
    commits_fail(1)
    job = await jobs.pending()
    (claim,) = await poll
    await jobs.finish(claim.job.id, Holder(token=claim.token), RESULT)
    done = await jobs.get(job.id)
    assert (done.state, done.attempt, done.retries) == (JobState.DONE, 1, 0)


@on_sqlite
async def test_a_job_that_is_claimed_at_the_second_try_in_the_place_of_another_is_free(
    jobs: Jobs, database: Database, commits_fail: Callable[..., None]
) -> None:
    urgent = msgspec.structs.replace((await jobs.running()).job, id=new_id(), priority=5)
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected))
    await eventually(jobs.polls)

    def come_first() -> None:
        database._writer.put(Write(lambda conn: store_jobs.insert(conn, [urgent]), (urgent.deployment_id,)))

    commits_fail(1, come_first)
    job = await jobs.pending()
    (claim,) = await poll
    assert claim.job.id == job.id
    with pytest.raises(StaleAttempt):
        await jobs.finish(job.id, Holder(token=claim.token), RESULT)
    await eventually(lambda: not jobs.queue.dispatcher._tasks)
    taken = [await jobs.claim(), await jobs.claim()]
    assert [again and again.job.id for again in taken] == [urgent.id, job.id]


async def test_a_stale_attempt_changes_nothing(jobs: Jobs, clock: Clock) -> None:
    stale = await jobs.running(REPLICA_1)
    clock.now += 91
    await jobs.upkeep.reclaim(clock.now)
    fresh = await jobs.claim(REPLICA_2)
    assert fresh is not None
    assert fresh.job.attempt == 2
    for holder in (Holder(token=stale.token), Holder(replica_id="replica-1")):
        with pytest.raises(StaleAttempt):
            await jobs.finish(stale.job.id, holder, b'{"answer": 1}')
        with pytest.raises(StaleAttempt):
            await jobs.renew(stale.job.id, holder, progress=1)
    await jobs.finish(fresh.job.id, Holder(token=fresh.token), RESULT)
    job = await jobs.get(fresh.job.id)
    assert (job.state, job.outputs, job.info) == (JobState.DONE, msgspec.Raw(RESULT), {})


async def test_the_first_terminal_state_stays(jobs: Jobs) -> None:
    job_id, token = await jobs.in_state(JobState.DONE)
    with pytest.raises(StaleAttempt):
        await jobs.fail(job_id, Holder(token=token))
    assert (await jobs.get(job_id)).state is JobState.DONE


async def test_renewals_extend_the_claim_and_merge_info(jobs: Jobs, clock: Clock) -> None:
    claim = await jobs.running()
    holder = Holder(token=claim.token)
    clock.now += 60
    await jobs.renew(claim.job.id, holder, step=1, kept=True)
    clock.now += 60
    await jobs.upkeep.reclaim(clock.now)
    await jobs.renew(claim.job.id, holder, step=2)
    job = await jobs.get(claim.job.id)
    assert job.state is JobState.RUNNING
    assert job.info == {"step": 2, "kept": True}


async def test_results_that_come_together_bring_their_info(jobs: Jobs) -> None:
    for number in range(5):
        await jobs.pending(**({"info": {"trace": "abc", "step": 1}} if number == 3 else {}))
    handed = await jobs.claim_many(5)
    await jobs.renew(handed[4].job.id, Holder(token=handed[4].token), step=1, kept=True)
    updates = [
        Update(
            verb=JobVerb.FINISH,
            job_id=claim.job.id,
            token=claim.token,
            outputs=msgspec.Raw(RESULT),
            info={"step": 2} if number else {},
        )
        for number, claim in enumerate(handed)
    ]
    stale = msgspec.structs.replace(updates[1], token="of-another-attempt")
    project, deployment = jobs.project_id, jobs.deployment
    turn = await jobs.work.take_turn(project, deployment, Holder(), [updates[0], stale, *updates[2:]], None, 0)
    assert [type(told.error) for told in turn.told] == [type(None), StaleAttempt, type(None), type(None), type(None)]
    found = [await jobs.get(claim.job.id) for claim in handed]
    done = JobState.DONE
    assert [job.state for job in found] == [done, JobState.RUNNING, done, done, done]
    nothing: dict[str, object] = {}
    assert [job.info for job in found] == [
        nothing,
        nothing,
        {"step": 2},
        {"trace": "abc", "step": 2},
        {"step": 2, "kept": True},
    ]


async def test_a_claim_without_a_time_out_is_held_until_its_replica_is_gone(jobs: Jobs, clock: Clock) -> None:
    claim = await jobs.running(Worker(hostname="one", replica_id="replica-1"))
    clock.now += 30 * 24 * 3600
    await jobs.upkeep.reclaim(clock.now)
    assert (await jobs.get(claim.job.id)).state is JobState.RUNNING
    await jobs.upkeep.lose_replica("replica-1")
    job = await jobs.get(claim.job.id)
    assert (job.state, job.retries) == (JobState.PENDING, 1)


async def test_a_job_that_is_given_up_says_how_its_last_worker_ended(jobs: Jobs) -> None:
    job = await jobs.pending()
    for _ in range(4):
        await jobs.claim(REPLICA_1)
        await jobs.upkeep.lose_replica("replica-1", "signal SIGSEGV")
    given_up = await jobs.get(job.id)
    assert given_up.state is JobState.FAILED
    assert "its replica ended in the middle of it (signal SIGSEGV)" in given_up.info["error"]


async def test_whether_a_replica_has_worked_since_is_known_from_its_jobs(jobs: Jobs, clock: Clock) -> None:
    began, claim = clock.now, await jobs.running(REPLICA_1)
    assert not await jobs.upkeep.has_worked(jobs.deployment.id, "replica-1", began)
    await jobs.finish(claim.job.id, Holder(token=claim.token))
    assert await jobs.upkeep.has_worked(jobs.deployment.id, "replica-1", began)
    assert not await jobs.upkeep.has_worked(jobs.deployment.id, "replica-2", began)
    assert not await jobs.upkeep.has_worked(jobs.deployment.id, "replica-1", clock.now + 1)


async def test_a_replica_that_is_about_to_leave_is_handed_no_job(jobs: Jobs) -> None:
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, REPLICA_1, 30, never_disconnected))
    await eventually(jobs.polls)
    jobs.queue.dispatcher.leave("replica-1")
    assert await poll == []
    job = await jobs.pending()
    assert await jobs.work.retrieve(jobs.deployment, REPLICA_1, 0.01, never_disconnected) == []
    turn = await jobs.work.take_turn(jobs.deployment.project_id, jobs.deployment, Holder(), [], REPLICA_1, 1)
    assert turn.handed == []
    claim = await jobs.claim(REPLICA_2)
    assert claim is not None
    assert claim.job.id == job.id
    jobs.queue.dispatcher.gone("replica-1")
    await jobs.pending()
    assert await jobs.claim(REPLICA_1) is not None


async def test_a_lost_replica_frees_only_what_it_held(jobs: Jobs) -> None:
    mine, other = await jobs.running(REPLICA_1), await jobs.running(REPLICA_2)
    assert await jobs.upkeep.busy_replicas() == {"replica-1", "replica-2"}
    await jobs.upkeep.lose_replica("replica-1")
    assert (await jobs.get(mine.job.id)).state is JobState.PENDING
    assert (await jobs.get(other.job.id)).state is JobState.RUNNING


async def test_a_released_job_goes_to_the_next_worker_without_a_retry(jobs: Jobs) -> None:
    claim = await jobs.running()
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected))
    await eventually(jobs.polls)
    await jobs.release(claim.job.id, Holder(token=claim.token))
    (again,) = await poll
    assert (again.job.id, again.job.attempt, again.job.retries) == (claim.job.id, 2, 0)


async def test_a_cancel_reaches_the_worker_with_its_next_renewal(jobs: Jobs) -> None:
    claim = await jobs.running()
    holder = Holder(token=claim.token)
    assert await jobs.renew(claim.job.id, holder) is False
    await jobs.queue.cancel(jobs.project_id, "hello", claim.job.id)
    assert await jobs.renew(claim.job.id, holder) is True
    await jobs.abandon(claim.job.id, holder)
    assert (await jobs.get(claim.job.id)).state is JobState.CANCELED


async def test_a_lost_job_whose_cancel_was_asked_for_is_canceled(jobs: Jobs) -> None:
    claim = await jobs.running(REPLICA_1)
    await jobs.queue.cancel(jobs.project_id, "hello", claim.job.id)
    await jobs.upkeep.lose_replica("replica-1")
    assert (await jobs.get(claim.job.id)).state is JobState.CANCELED


async def test_clear_cancels_what_waits_and_leaves_what_runs(jobs: Jobs) -> None:
    running = await jobs.running()
    waiting = [await jobs.pending() for _ in range(3)]
    assert await jobs.queue.clear(jobs.project_id, "hello") == 3
    assert {(await jobs.get(job.id)).state for job in waiting} == {JobState.CANCELED}
    assert (await jobs.get(running.job.id)).state is JobState.RUNNING


async def test_deleting_a_deployment_cancels_what_waits_and_refuses_more(jobs: Jobs, queue: QueueService) -> None:
    waiting = await jobs.pending()
    await queue._deployments.delete(jobs.project_id, "hello")
    assert (await jobs.get(waiting.id)).state is JobState.CANCELED
    with pytest.raises(NotFound):
        await jobs.pending()


@pytest.mark.parametrize("payload", [b"[]", b"1", b'"text"', b"null", b" [1]"])
async def test_a_payload_that_is_no_object_is_refused(jobs: Jobs, payload: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await jobs.pending(payload=msgspec.Raw(payload))
    assert refused.value.param == "payload"


async def test_every_claim_leaves_an_attempt_with_its_outcome(jobs: Jobs, database: Database) -> None:
    claim = await jobs.running(REPLICA_1)
    await jobs.upkeep.lose_replica("replica-1")
    again = await jobs.claim(REPLICA_2)
    assert again is not None
    await jobs.finish(again.job.id, Holder(token=again.token), RESULT)
    rows = await database.read(
        lambda conn: conn.execute(
            select(attempts.c.number, attempts.c.replica_id, attempts.c.outcome).where(
                attempts.c.job_id == claim.job.id
            )
        ).all()
    )
    assert sorted(tuple(row) for row in rows) == [(1, "replica-1", "lose"), (2, "replica-2", "finish")]


async def test_close_sends_waiting_workers_home(jobs: Jobs) -> None:
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected))
    await eventually(jobs.polls)
    jobs.queue.close()
    async with asyncio.timeout(60):
        assert await poll == []


async def test_a_released_job_whose_cancel_was_asked_for_is_canceled(jobs: Jobs) -> None:
    claim = await jobs.running()
    await jobs.queue.cancel(jobs.project_id, "hello", claim.job.id)
    await jobs.release(claim.job.id, Holder(token=claim.token))
    assert (await jobs.get(claim.job.id)).state is JobState.CANCELED


async def test_no_job_of_a_deleted_deployment_goes_back_to_its_queue(
    jobs: Jobs, queue: QueueService, clock: Clock
) -> None:
    released, lost, expired = [await jobs.running(worker) for worker in (WORKER, REPLICA_1, REPLICA_2)]
    await queue._deployments.delete(jobs.project_id, "hello")
    await jobs.release(released.job.id, Holder(token=released.token))
    await jobs.upkeep.lose_replica("replica-1")
    clock.now += 91
    await jobs.upkeep.reclaim(clock.now)
    assert (await jobs.get(released.job.id)).state is JobState.CANCELED
    for claim in (lost, expired):
        job = await jobs.get(claim.job.id)
        assert job.state is JobState.FAILED
        assert "its deployment was deleted" in job.info["error"]


async def test_jobs_left_in_a_deleted_deployment_are_found_and_ended(jobs: Jobs, database: Database) -> None:
    pending, running = await jobs.pending(), None
    running = await jobs.claim()
    assert running is not None
    pending = await jobs.pending()
    await database.write(
        lambda conn: (
            conn.exec_driver_sql("UPDATE deployments SET deleted_at = 1").rowcount
        )  # as an older version left it
    )
    assert await database.read(store_jobs.deleted_deployments_with_jobs) == [(jobs.project_id, jobs.deployment.id)]
    await jobs.upkeep.end_all(jobs.deployment.id)
    assert (await jobs.get(pending.id)).state is JobState.CANCELED
    assert (await jobs.get(running.job.id)).state is JobState.FAILED
    assert await database.read(store_jobs.deleted_deployments_with_jobs) == []


async def test_a_queued_job_is_not_claimed_for_a_connection_that_is_closed(jobs: Jobs) -> None:
    job = await jobs.pending()

    async def disconnected() -> None:
        return

    assert await jobs.work.retrieve(jobs.deployment, WORKER, 30, disconnected) == []
    async with asyncio.timeout(60):
        while (await jobs.get(job.id)).state is not JobState.PENDING:
            await asyncio.sleep(0.005)
    assert (await jobs.get(job.id)).retries == 0


async def test_a_replica_that_never_renews_and_asks_again_has_lost_what_it_held(jobs: Jobs) -> None:
    sync_worker = Worker(hostname="one", replica_id="replica-1")
    claim = await jobs.running(sync_worker)
    again = await jobs.claim(sync_worker)
    assert again is not None
    assert (again.job.id, again.job.attempt, again.job.retries) == (claim.job.id, 2, 1)
