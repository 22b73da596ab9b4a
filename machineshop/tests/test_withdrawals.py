"""Jobs that end without a result: canceled by force, past their deadline, cleared, released too often, removed."""

import asyncio

import msgspec
import pytest

from factory import WORKER, Clock, Jobs, never_disconnected
from machineshop.control.reclaimer import Reclaimer
from machineshop.errors import NotFound, StaleAttempt
from machineshop.models import FairKey, Worker
from machineshop.states import JobState
from machineshop.store import queues
from machineshop.store.attempts import MAX_RELEASES
from machineshop.store.database import Database
from machineshop.store.jobs import JobFilter
from machineshop.store.losses import MAX_RETRIES
from machineshop.store.moves import Holder
from machineshop.store.withdrawals import CHUNK

REPLICA = Worker(hostname="one", replica_id="replica-1", claim_timeout_seconds=90)


class Replaced(list[str]):
    """A runtime that notes what it is asked to replace."""

    async def replace(self, replica_id: str) -> None:
        self.append(replica_id)


async def test_a_cancel_that_is_not_taken_up_is_forced_and_the_replica_replaced(jobs: Jobs, clock: Clock) -> None:
    replaced = Replaced()
    reclaimer = Reclaimer(jobs.upkeep, replaced, clock)
    await reclaimer.run_once(clock.now)
    claim = await jobs.running(REPLICA)
    await jobs.queue.cancel(jobs.project_id, "hello", claim.job.id, 12)
    await _listen(reclaimer, clock, 8)
    assert await jobs.renew(claim.job.id, Holder(token=claim.token)) is True  # it is told, and takes no notice
    assert (await jobs.get(claim.job.id)).state is JobState.RUNNING
    await _listen(reclaimer, clock, 4)
    assert (await jobs.get(claim.job.id)).state is JobState.CANCELED
    assert replaced == ["replica-1"]
    with pytest.raises(StaleAttempt):
        await jobs.finish(claim.job.id, Holder(token=claim.token))
    await reclaimer.run_once(clock.now)
    assert replaced == ["replica-1"]


async def test_a_claim_does_not_run_out_while_nobody_could_hear_its_worker(jobs: Jobs, clock: Clock) -> None:
    reclaimer = Reclaimer(jobs.upkeep, Replaced(), clock)
    claim = await jobs.running(REPLICA)
    await reclaimer.run_once(clock.now)
    clock.now += 600  # the server was halted, or started again, or without its database
    await reclaimer.run_once(clock.now)
    assert (await jobs.get(claim.job.id)).state is JobState.RUNNING
    assert await jobs.renew(claim.job.id, Holder(token=claim.token)) is False
    await _listen(reclaimer, clock, 88)
    assert (await jobs.get(claim.job.id)).state is JobState.RUNNING
    await _listen(reclaimer, clock, 4)
    assert (await jobs.get(claim.job.id)).state is JobState.PENDING


async def test_a_worker_that_was_lost_while_nobody_could_hear_it_loses_its_claim_later(
    jobs: Jobs, clock: Clock
) -> None:
    claim = await jobs.running(REPLICA)
    clock.now += 600
    reclaimer = Reclaimer(jobs.upkeep, Replaced(), clock)
    await _listen(reclaimer, clock, 88)
    assert (await jobs.get(claim.job.id)).state is JobState.RUNNING
    await _listen(reclaimer, clock, 8)
    assert (await jobs.get(claim.job.id)).state is JobState.PENDING


async def test_a_cancel_is_not_forced_on_a_worker_that_could_not_be_told_of_it(jobs: Jobs, clock: Clock) -> None:
    claim = await jobs.running(REPLICA)
    await jobs.queue.cancel(jobs.project_id, "hello", claim.job.id, 20)
    clock.now += 60
    replaced = Replaced()
    reclaimer = Reclaimer(jobs.upkeep, replaced, clock)
    await _listen(reclaimer, clock, 12)
    assert replaced == []
    await _listen(reclaimer, clock, 8)
    assert replaced == ["replica-1"]
    assert (await jobs.get(claim.job.id)).state is JobState.CANCELED


async def _listen(reclaimer: Reclaimer, clock: Clock, seconds: int) -> None:
    for _ in range(0, seconds, 4):
        clock.now += 4
        await reclaimer.run_once(clock.now)


async def test_a_released_job_that_is_claimed_again_is_not_canceled_by_an_old_wish(jobs: Jobs, clock: Clock) -> None:
    claim = await jobs.running(REPLICA)
    await jobs.release(claim.job.id, Holder(token=claim.token))
    again = await jobs.claim()
    assert again is not None
    clock.now += 60
    await jobs.upkeep.reclaim(clock.now)
    assert (await jobs.get(claim.job.id)).state is JobState.RUNNING


async def test_a_deadline_ends_what_waits_and_what_runs(jobs: Jobs, clock: Clock) -> None:
    running = await jobs.pending(deadline_seconds=50)
    claim = await jobs.claim()
    assert claim is not None
    waiting, patient = await jobs.pending(deadline_seconds=50), await jobs.pending(deadline_seconds=500)
    clock.now += 49
    await jobs.upkeep.reclaim(clock.now)
    assert (await jobs.get(waiting.id)).state is JobState.PENDING
    clock.now += 2
    await jobs.upkeep.reclaim(clock.now)
    for job_id, words in ((running.id, "in attempt 1"), (waiting.id, "while the job waited")):
        job = await jobs.get(job_id)
        assert job.state is JobState.FAILED
        assert words in job.info["error"]
    with pytest.raises(StaleAttempt):
        await jobs.renew(running.id, Holder(token=claim.token))
    assert (await jobs.get(patient.id)).state is JobState.PENDING


async def test_a_job_that_ended_in_time_is_not_touched_by_its_deadline(jobs: Jobs, clock: Clock) -> None:
    await jobs.pending(deadline_seconds=50)
    claim = await jobs.claim()
    assert claim is not None
    await jobs.finish(claim.job.id, Holder(token=claim.token))
    clock.now += 100
    await jobs.upkeep.reclaim(clock.now)
    assert (await jobs.get(claim.job.id)).state is JobState.DONE


async def test_clear_takes_more_than_fits_in_one_transaction_and_only_what_was_there(jobs: Jobs) -> None:
    for _ in range(CHUNK // 1000 + 1):
        await jobs.queue.submit_many(jobs.project_id, [jobs.submission() for _ in range(1000)])
    claimed = await jobs.claim_many(10)
    assert await jobs.queue.clear(jobs.project_id, "hello") == CHUNK + 1000 - 10
    later = await jobs.pending()
    counts = await jobs.queue.count(jobs.project_id, "hello")
    assert (counts.pending, counts.running) == (1, len(claimed))
    assert (await jobs.get(later.id)).state is JobState.PENDING


async def test_a_job_that_is_handed_back_again_and_again_is_given_up_in_the_end(jobs: Jobs) -> None:
    job = await jobs.pending()
    attempts = 0
    while (await jobs.get(job.id)).state is JobState.PENDING:
        claim = await jobs.claim()
        assert claim is not None
        attempts += 1
        assert attempts < 100
        await jobs.release(job.id, Holder(token=claim.token))
    ended = await jobs.get(job.id)
    assert (ended.state, attempts, ended.retries) == (JobState.FAILED, MAX_RELEASES + MAX_RETRIES + 1, MAX_RETRIES)
    assert "handed back" in ended.info["error"]


async def test_ended_jobs_are_removed_by_age_and_by_number(jobs: Jobs, clock: Clock) -> None:
    await jobs.queue.change_settings(jobs.project_id, "hello", {"keep_count": 3, "keep_seconds": 100}, {})
    ended = []
    for _ in range(5):
        clock.now += 10
        claim = await jobs.running()
        await jobs.finish(claim.job.id, Holder(token=claim.token))
        ended.append(claim.job.id)
    running, pending = await jobs.running(), await jobs.pending()
    assert await jobs.upkeep.clean(clock.now) == 2
    kept = (await jobs.queue.list_page(jobs.project_id, "hello", JobFilter(), None, 100)).jobs
    assert {job.id for job in kept} == {*ended[2:], pending.id, running.job.id}
    with pytest.raises(NotFound):
        await jobs.get(ended[0])
    clock.now += 90  # the third was done 110 s ago, the others within 100 s
    assert await jobs.upkeep.clean(clock.now) == 2
    assert (await jobs.get(ended[4])).state is JobState.DONE
    assert (await jobs.get(pending.id)).state is JobState.PENDING


async def test_a_queue_with_nothing_to_remove_is_let_be(jobs: Jobs, database: Database, clock: Clock) -> None:
    assert await database.read(queues.retention) == []
    await jobs.pending()
    await jobs.queue.clear(jobs.project_id, "hello")
    assert [kept[0] for kept in await database.read(queues.retention)] == [jobs.deployment.id]
    await jobs.queue.change_settings(jobs.project_id, "hello", {"keep_count": 0}, {})
    await jobs.upkeep.clean(clock.now)
    assert await database.read(queues.retention) == []


async def test_of_jobs_that_ended_at_one_moment_no_more_are_removed_than_are_too_many(jobs: Jobs, clock: Clock) -> None:
    await jobs.queue.change_settings(jobs.project_id, "hello", {"keep_count": 3, "keep_seconds": 100}, {})
    earlier = [await jobs.pending() for _ in range(2)]
    await jobs.queue.clear(jobs.project_id, "hello")
    clock.now += 10
    together = [await jobs.pending() for _ in range(5)]
    await jobs.queue.clear(jobs.project_id, "hello")
    assert await jobs.upkeep.clean(clock.now) == len(earlier) + 2
    kept = (await jobs.queue.list_page(jobs.project_id, "hello", JobFilter(), None, 100)).jobs
    assert {job.id for job in kept} == {job.id for job in together[2:]}
    assert await jobs.upkeep.clean(clock.now) == 0
    clock.now += 101
    assert await jobs.upkeep.clean(clock.now) == 3


async def test_a_cap_that_is_raised_wakes_the_workers_that_wait(jobs: Jobs) -> None:
    await jobs.queue.change_settings(jobs.project_id, "hello", {}, {"acme": FairKey(max_running=1)})
    first, second = [await jobs.pending(fair_key="acme") for _ in range(2)]
    claim = await jobs.claim()
    assert claim is not None
    assert claim.job.id == first.id
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected))
    while not jobs.polls():
        await asyncio.sleep(0.001)
    await jobs.queue.change_settings(jobs.project_id, "hello", {}, {"acme": FairKey(max_running=2)})
    (handed,) = await poll
    assert handed.job.id == second.id


async def test_a_capped_keys_next_job_goes_to_a_waiting_worker_when_one_ends(jobs: Jobs) -> None:
    await jobs.queue.change_settings(jobs.project_id, "hello", {"max_running_per_key": 1}, {})
    first, second = [await jobs.pending(fair_key="acme") for _ in range(2)]
    claim = await jobs.claim()
    assert claim is not None
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected))
    while not jobs.polls():
        await asyncio.sleep(0.001)
    await jobs.finish(first.id, Holder(token=claim.token))
    (handed,) = await poll
    assert handed.job.id == second.id


async def test_listing_filters_and_pages(jobs: Jobs, clock: Clock) -> None:
    made = []
    for number in range(6):
        clock.now += 1
        made.append(await jobs.pending(fair_key="acme" if number % 2 else None))
    claim = await jobs.claim()
    assert claim is not None
    await jobs.fail(claim.job.id, Holder(token=claim.token))
    await jobs.queue.cancel(jobs.project_id, "hello", made[5].id)

    async def listed(before: int | None = None, limit: int = 100, **chosen: object) -> list[int]:
        page = await jobs.queue.list_page(jobs.project_id, "hello", JobFilter(**chosen), before, limit)  # type: ignore[arg-type]
        numbers = {job.id: number for number, job in enumerate(made)}
        return [numbers[job.id] for job in page.jobs]

    assert await listed() == [5, 4, 3, 2, 1, 0]
    assert await listed(limit=2) == [5, 4]
    assert await listed(before=(await jobs.get(made[4].id)).sequence, limit=2) == [3, 2]
    assert await listed(states=frozenset({JobState.FAILED})) == [0]
    assert await listed(states=frozenset({JobState.FAILED, JobState.CANCELED})) == [5, 0]
    assert await listed(states=frozenset({JobState.PENDING}), fair_key="acme") == [3, 1]
    assert await listed(created_after=made[2].created_at, created_before=made[5].created_at) == [4, 3]


async def test_the_earliest_of_several_cancels_counts(jobs: Jobs, clock: Clock) -> None:
    claim = await jobs.running(REPLICA)
    await jobs.queue.cancel(jobs.project_id, "hello", claim.job.id, 20)
    clock.now += 15
    await jobs.queue.cancel(jobs.project_id, "hello", claim.job.id, 20)
    clock.now += 6
    await jobs.upkeep.reclaim(clock.now)
    assert (await jobs.get(claim.job.id)).state is JobState.CANCELED


async def test_a_job_that_is_late_already_is_handed_to_nobody(jobs: Jobs, clock: Clock) -> None:
    late, in_time = await jobs.pending(deadline_seconds=1), await jobs.pending()
    clock.now += 2
    claims = await jobs.claim_many(2)
    assert [claim.job.id for claim in claims] == [in_time.id]
    assert (await jobs.get(late.id)).state is JobState.FAILED
    counts = await jobs.queue.count(jobs.project_id, "hello")
    assert (counts.pending, counts.running) == (0, 1)


async def test_a_worker_that_meets_many_late_jobs_does_not_fail_them_all_and_gets_the_one_behind_them(
    jobs: Jobs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.store.claims.LATE_AT_MOST", 3)
    monkeypatch.setattr("machineshop.services.dispatch.LATE_PAUSE_SECONDS", 600)
    await jobs.queue.submit_many(jobs.project_id, [jobs.submission(deadline_seconds=1) for _ in range(10)])
    in_time = await jobs.pending()
    clock.now += 2
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected))
    while not jobs.polls():
        await asyncio.sleep(0.001)
    assert (await jobs.queue.count(jobs.project_id, "hello")).pending == 8
    await jobs.upkeep.reclaim(clock.now)
    (handed,) = await poll
    assert handed.job.id == in_time.id
    assert (await jobs.queue.count(jobs.project_id, "hello")).pending == 0


async def test_a_job_behind_as_many_late_ones_as_a_claim_fails_is_not_left_to_wait(
    jobs: Jobs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control loop finds nothing to do there, and so wakes nobody."""
    monkeypatch.setattr("machineshop.store.claims.LATE_AT_MOST", 3)
    await jobs.queue.submit_many(jobs.project_id, [jobs.submission(deadline_seconds=1) for _ in range(6)])
    in_time = await jobs.pending()
    clock.now += 2
    (handed,) = await jobs.work.retrieve(jobs.deployment, WORKER, 60, never_disconnected)
    assert handed.job.id == in_time.id


async def test_a_claim_of_many_large_jobs_stops_in_time(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machineshop.store.claims.CLAIM_BYTES", 1000)
    monkeypatch.setattr("machineshop.store.claims.CLAIM_CHUNK", 2)
    await jobs.queue.submit_many(
        jobs.project_id, [jobs.submission(payload=msgspec.Raw(b'{"t":"%s"}' % (b"x" * 300))) for _ in range(9)]
    )
    assert [len(await jobs.claim_many(9)) for _ in range(3)] == [4, 4, 1]
