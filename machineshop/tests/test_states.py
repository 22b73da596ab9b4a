"""The table of a job's moves, walked: every state with every verb, against the real store."""

import pytest

from factory import Jobs
from machineshop.errors import Conflict, NotFound
from machineshop.states import JOB_MOVES, TERMINAL_STATES, JobState, JobVerb, source, target
from machineshop.store.losses import MAX_RETRIES
from machineshop.store.moves import Holder

# Verbs that a worker says, with what it says.
WORKER_VERBS = (JobVerb.RENEW, JobVerb.FINISH, JobVerb.FAIL, JobVerb.ABANDON, JobVerb.RELEASE)


def test_every_verb_has_one_source_and_terminal_states_have_no_way_out() -> None:
    assert {verb for _, verb in JOB_MOVES} == set(JobVerb)
    assert all(len([1 for _, move in JOB_MOVES if move is verb]) == 1 for verb in JobVerb)
    assert not any(state in TERMINAL_STATES for state, _ in JOB_MOVES)
    assert {target(verb) for verb in JobVerb} == set(JobState)


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("verb", WORKER_VERBS)
async def test_a_worker_verb_moves_a_job_only_from_its_source(jobs: Jobs, state: JobState, verb: JobVerb) -> None:
    job_id, token = await jobs.in_state(state)
    before = await jobs.get(job_id)
    if state is source(verb):
        await jobs.say(verb, job_id, Holder(token=token), info={"error": "late"} if verb is JobVerb.FAIL else {})
        assert (await jobs.get(job_id)).state is target(verb)
    else:
        with pytest.raises(Conflict):
            await jobs.say(verb, job_id, Holder(token=token), info={"error": "late"} if verb is JobVerb.FAIL else {})
        assert await jobs.get(job_id) == before


@pytest.mark.parametrize("state", list(JobState))
async def test_cancel_moves_only_pending_jobs_and_marks_running_ones(jobs: Jobs, state: JobState) -> None:
    job_id, _ = await jobs.in_state(state)
    job = await jobs.queue.cancel(jobs.project_id, jobs.deployment.name, job_id)
    assert job.state is (JobState.CANCELED if state is JobState.PENDING else state)
    assert job.cancel_requested is (state is JobState.RUNNING)


@pytest.mark.parametrize("state", list(JobState))
async def test_claim_takes_only_pending_jobs(jobs: Jobs, state: JobState) -> None:
    job_id, _ = await jobs.in_state(state)
    claim = await jobs.claim()
    if state is JobState.PENDING:
        assert claim is not None
        assert claim.job.id == job_id
    else:
        assert claim is None


@pytest.mark.parametrize("state", list(JobState))
async def test_expiry_moves_only_running_jobs(jobs: Jobs, state: JobState) -> None:
    job_id, _ = await jobs.in_state(state)
    before = await jobs.get(job_id)
    await jobs.upkeep.reclaim(before.created_at + 91)
    after = await jobs.get(job_id)
    if state is JobState.RUNNING:
        assert after.state is target(JobVerb.LOSE)
        assert after.retries == 1
    else:
        assert after == before


async def test_a_job_whose_worker_is_lost_too_often_is_given_up(jobs: Jobs) -> None:
    job_id = (await jobs.running()).job.id
    for lost in range(1, MAX_RETRIES + 1):
        await jobs.upkeep.reclaim((await jobs.get(job_id)).created_at + 91)
        assert (await jobs.get(job_id)).retries == lost
        assert await jobs.claim() is not None
    await jobs.upkeep.reclaim((await jobs.get(job_id)).created_at + 91)
    job = await jobs.get(job_id)
    assert job.state is target(JobVerb.GIVE_UP)
    assert "attempt 4" in job.info["error"]


async def test_an_unknown_job_is_not_found(jobs: Jobs) -> None:
    with pytest.raises(NotFound):
        await jobs.renew("none-such", Holder(token="t"))
