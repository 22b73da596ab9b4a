"""What a streaming model gives while its job runs: kept in order, fenced by the attempt, gone with it."""

from typing import Any

import msgspec
import pytest

from factory import Clock, Jobs
from machineshop.errors import PayloadTooLarge, StaleAttempt
from machineshop.models import Claim
from machineshop.states import JobVerb
from machineshop.store import chunks
from machineshop.store.chunks import Chunks
from machineshop.store.database import Database
from machineshop.store.moves import Holder


async def claimed(jobs: Jobs) -> Claim:
    await jobs.pending()
    claim = await jobs.claim()
    assert claim is not None
    return claim


async def give(jobs: Jobs, claim: Claim, first: int, *values: Any) -> None:
    given = Chunks(first, [msgspec.Raw(msgspec.json.encode(value)) for value in values])
    await jobs.say(JobVerb.RENEW, claim.job.id, Holder(token=claim.token), given=given)


async def given(jobs: Jobs, job_id: str) -> list[Any]:
    job = await jobs.queue.status(jobs.project_id, jobs.deployment.name, job_id)
    return [msgspec.json.decode(value) for value in await jobs.queue.given(job)]


async def rows(database: Database) -> int:
    def count(conn: Any) -> int:
        return int(conn.exec_driver_sql("SELECT count(*) FROM chunks").scalar())

    return await database.read(count)


async def test_chunks_are_kept_in_their_order_while_the_job_runs(jobs: Jobs) -> None:
    claim = await claimed(jobs)
    await give(jobs, claim, 0, {"text": "a"}, "b")
    await give(jobs, claim, 2, None)
    await jobs.renew(claim.job.id, Holder(token=claim.token), step=1)
    assert await given(jobs, claim.job.id) == [{"text": "a"}, "b", None]
    await jobs.finish(claim.job.id, Holder(token=claim.token))
    assert await given(jobs, claim.job.id) == []


async def test_a_worker_that_did_not_hear_the_answer_repeats_itself_with_more(jobs: Jobs) -> None:
    claim = await claimed(jobs)
    await give(jobs, claim, 0, 0, 1)
    await give(jobs, claim, 2, 2, 3)
    await give(jobs, claim, 2, 2, 3, 4)
    await give(jobs, claim, 5, 5)
    assert await given(jobs, claim.job.id) == [0, 1, 2, 3, 4, 5]


async def test_a_stale_attempt_gives_nothing_and_a_new_one_begins_anew(jobs: Jobs, clock: Clock) -> None:
    lost = await claimed(jobs)
    await give(jobs, lost, 0, "old", "old too")
    clock.now += 91
    await jobs.upkeep.reclaim(clock.now)
    assert await given(jobs, lost.job.id) == []
    again = await jobs.claim()
    assert again is not None
    assert await given(jobs, lost.job.id) == []
    await give(jobs, again, 0, "new")
    with pytest.raises(StaleAttempt):
        await give(jobs, lost, 2, "late")
    assert await given(jobs, lost.job.id) == ["new"]


async def test_there_is_a_limit_to_what_an_attempt_gives(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNKS_LIMIT_BYTES", 20)
    claim = await claimed(jobs)
    await give(jobs, claim, 0, "12345678")
    await give(jobs, claim, 1, "12345678")
    with pytest.raises(PayloadTooLarge, match="All that the job has given in chunks"):
        await give(jobs, claim, 2, "x")
    await give(jobs, claim, 1, "1234")  # in the place of what was there
    assert await given(jobs, claim.job.id) == ["12345678", "1234"]


async def test_reading_goes_on_anywhere_and_in_steps(
    jobs: Jobs, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "READ_BYTES", 8)
    claim = await claimed(jobs)
    for first in range(0, 30, 3):
        await give(jobs, claim, first, first, first + 1, first + 2)
    read: list[int] = []
    while (part := await database.read(chunks.read, claim.job.id, 1, len(read))).values:
        assert part.first == len(read)
        read += [msgspec.json.decode(value) for value in part.values]
    assert read == list(range(30))
    middle = await database.read(chunks.read, claim.job.id, 1, 4)
    assert (middle.first, [bytes(value) for value in middle.values][:3]) == (4, [b"4", b"5", b"6"])
    assert await given(jobs, claim.job.id) == list(range(30))


async def test_what_nobody_reads_any_longer_is_removed(jobs: Jobs, database: Database, clock: Clock) -> None:
    running, done = await claimed(jobs), await claimed(jobs)
    for claim in (running, done):
        for number in range(3):
            await give(jobs, claim, number, number)
    await jobs.finish(done.job.id, Holder(token=done.token))
    assert await rows(database) == 6
    await jobs.upkeep.clean(clock.now)
    assert await rows(database) == 3
    assert await given(jobs, running.job.id) == [0, 1, 2]
