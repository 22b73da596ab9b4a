"""A worker that got no answer asks again, and is handed the jobs that it never heard of."""

import msgspec
import pytest

from factory import Clock, Jobs
from machineshop.errors import StaleAttempt
from machineshop.models import Claim, Worker
from machineshop.states import JobState, JobVerb
from machineshop.store.moves import Holder
from machineshop.store.turns import Update

WORKER = Worker(hostname="one", claim_timeout_seconds=90, turn_id="turn-of-worker-one")


AGAIN = msgspec.structs.replace(WORKER, asks_again=True)


def ids(claims: list[Claim]) -> list[str]:
    return [claim.job.id for claim in claims]


async def test_a_claim_that_was_not_answered_is_made_again(jobs: Jobs, clock: Clock) -> None:
    first, second, third = [await jobs.pending() for _ in range(3)]
    lost = await jobs.claim_many(2, WORKER)
    clock.now += 60
    found = await jobs.claim_many(1, AGAIN)
    assert ids(found) == ids(lost) == [first.id, second.id], "both, however few it asks for now"
    assert [claim.job.attempt for claim in found] == [1, 1]

    clock.now += 60
    await jobs.upkeep.reclaim(clock.now)
    assert (await jobs.get(first.id)).state is JobState.RUNNING, "it holds from now on"
    assert ids(await jobs.claim_many(2, AGAIN)) == ids(lost), "also where that answer was lost"
    other = msgspec.structs.replace(WORKER, turn_id="another-turn-of-worker-one")
    assert ids(await jobs.claim_many(2, other)) == [third.id]


async def test_what_belongs_to_an_answer_that_was_lost_changes_nothing(jobs: Jobs) -> None:
    await jobs.pending()
    (lost,) = await jobs.claim_many(1, WORKER)
    (found,) = await jobs.claim_many(1, AGAIN)
    assert found.token != lost.token
    with pytest.raises(StaleAttempt):  # as the server does that finds that the worker has hung up
        await jobs.release(lost.job.id, Holder(token=lost.token))
    await jobs.finish(found.job.id, Holder(token=found.token))
    assert (await jobs.get(found.job.id)).state is JobState.DONE


async def test_a_claim_that_ran_out_is_another_attempt_for_whoever_makes_it_under_the_same_name(
    jobs: Jobs, clock: Clock
) -> None:
    await jobs.pending()
    (late,) = await jobs.claim_many(1, WORKER)
    clock.now += 91
    await jobs.upkeep.reclaim(clock.now)
    (found,) = await jobs.claim_many(1, WORKER)
    assert (found.job.id, found.job.attempt) == (late.job.id, 2)
    with pytest.raises(StaleAttempt):
        await jobs.finish(late.job.id, Holder(token=late.token))


async def test_only_who_made_a_claim_is_handed_it_again(jobs: Jobs) -> None:
    first, second, third = [await jobs.pending() for _ in range(3)]
    assert ids(await jobs.claim_many(1, WORKER)) == [first.id]
    neighbour = msgspec.structs.replace(AGAIN, hostname="two")
    replica = msgspec.structs.replace(AGAIN, replica_id="replica-1")
    assert ids(await jobs.claim_many(1, neighbour)) == [second.id], "and where nothing was claimed, the next job is"
    assert ids(await jobs.claim_many(1, replica)) == [third.id]


async def test_jobs_that_have_ended_or_were_taken_back_are_not_handed_again(jobs: Jobs) -> None:
    first, second = [await jobs.pending() for _ in range(2)]
    lost = await jobs.claim_many(2, WORKER)
    await jobs.finish(first.id, Holder(token=lost[0].token))
    await jobs.release(second.id, Holder(token=lost[1].token))
    (found,) = await jobs.claim_many(1, AGAIN)
    assert (found.job.id, found.job.attempt) == (second.id, 2), "a new attempt"


async def test_a_turn_with_results_is_made_again(jobs: Jobs) -> None:
    _, second = [await jobs.pending() for _ in range(2)]
    held = await jobs.running(msgspec.structs.replace(WORKER, turn_id=None))
    update = Update(verb=JobVerb.FINISH, job_id=held.job.id, token=held.token, outputs=msgspec.Raw(b"{}"))

    async def take(worker: Worker) -> tuple[list[type], list[str]]:
        turn = await jobs.work.take_turn(jobs.project_id, jobs.deployment, Holder(), [update], worker, 1)
        return [type(told.error) for told in turn.told], ids(turn.handed)

    assert await take(WORKER) == ([type(None)], [second.id])
    assert await take(AGAIN) == ([StaleAttempt], [second.id]), "the result had arrived"
