"""How jobs come in: one by one and many at once, with idempotency keys, up to the queue's limit."""

import asyncio

import msgspec
import pytest

from factory import WORKER, Jobs, never_disconnected
from machineshop.errors import (
    AnswerTooLarge,
    IdempotencyConflict,
    IdempotencyKeyReused,
    InvalidRequest,
    NotFound,
    NotResubmittable,
    PayloadTooLarge,
    QueueFull,
)
from machineshop.models import Include, Job
from machineshop.services.deployments import DeploymentService
from machineshop.services.queue import MAX_BATCH
from machineshop.services.submissions import PAYLOAD_LIMIT_BYTES
from machineshop.states import JobState
from machineshop.store.jobs import JobFilter
from machineshop.store.moves import INFO_LIMIT_BYTES, Holder


async def all_jobs(jobs: Jobs) -> list[Job]:
    return (await jobs.queue.list_page(jobs.project_id, "hello", JobFilter(), None, 1000)).jobs


async def test_what_comes_at_once_is_stored_and_each_gets_its_own_job(jobs: Jobs) -> None:
    stored = await asyncio.gather(*[jobs.pending() for _ in range(300)])
    assert len({job.id for job in stored}) == 300
    listed = await all_jobs(jobs)
    assert {job.id: job.payload for job in listed} == {job.id: job.payload for job in stored}
    counts = await jobs.queue.count(jobs.project_id, "hello")
    assert (counts.pending, counts.running) == (300, 0)


async def test_one_that_is_refused_among_many_that_come_at_once_spoils_no_other(jobs: Jobs) -> None:
    await jobs.pending(idempotency_key="known", payload=msgspec.Raw(b'{"a": 1}'))

    async def submit(number: int) -> str:
        payload = msgspec.Raw(b'{"a": 2}')
        try:
            await jobs.pending(payload=payload, idempotency_key="known" if number % 10 == 0 else None)
        except IdempotencyConflict:
            return "refused"
        return "stored"

    outcomes = await asyncio.gather(*[submit(number) for number in range(50)])
    assert [number for number, outcome in enumerate(outcomes) if outcome == "refused"] == [0, 10, 20, 30, 40]
    assert len(await all_jobs(jobs)) == 46


async def test_the_limit_holds_for_what_comes_at_once(jobs: Jobs) -> None:
    await jobs.queue.change_settings(jobs.project_id, "hello", {"max_pending": 7}, {})
    outcomes = await asyncio.gather(*[jobs.pending() for _ in range(20)], return_exceptions=True)
    full = [outcome for outcome in outcomes if isinstance(outcome, QueueFull)]
    assert len(full) == 13
    assert full[0].retry_after_seconds == 5
    assert len(await all_jobs(jobs)) == 7
    assert await jobs.claim() is not None
    await jobs.pending()  # there is room again


async def test_many_jobs_are_stored_all_or_none(jobs: Jobs) -> None:
    submitted = await jobs.queue.submit_many(jobs.project_id, [jobs.submission(priority=n % 3) for n in range(1000)])
    assert [job.id for job in await all_jobs(jobs)] == [one.job.id for one in reversed(submitted)]

    with pytest.raises(InvalidRequest) as refused:
        await jobs.queue.submit_many(
            jobs.project_id, [jobs.submission(), jobs.submission(), jobs.submission(payload=msgspec.Raw(b"[]"))]
        )
    assert refused.value.param == "[2].payload"
    await jobs.queue.change_settings(jobs.project_id, "hello", {"max_pending": 1001}, {})
    with pytest.raises(QueueFull):
        await jobs.queue.submit_many(jobs.project_id, [jobs.submission(), jobs.submission()])
    with pytest.raises(NotFound):
        await jobs.queue.submit_many(jobs.project_id, [jobs.submission(), jobs.submission(model="nowhere")])
    assert (await jobs.queue.count(jobs.project_id, "hello")).pending == 1000


@pytest.mark.parametrize("number", [0, MAX_BATCH + 1])
async def test_an_array_has_bounds(jobs: Jobs, number: int) -> None:
    with pytest.raises(InvalidRequest, match="1 to 1000 jobs"):
        await jobs.queue.submit_many(jobs.project_id, [jobs.submission()] * number)


async def test_many_jobs_wake_the_workers_that_wait(jobs: Jobs) -> None:
    polls = [
        asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 30, never_disconnected, 2)) for _ in range(3)
    ]
    while jobs.queue.dispatcher.waiters.count(jobs.deployment.id) < 3:
        await asyncio.sleep(0.001)
    submitted = await jobs.queue.submit_many(jobs.project_id, [jobs.submission() for _ in range(6)])
    handed = [claim.job.id for poll in polls for claim in await poll]
    assert sorted(handed) == sorted(one.job.id for one in submitted)


async def test_an_idempotency_key_stands_for_one_job(jobs: Jobs) -> None:
    first = await jobs.queue.submit(
        jobs.project_id, jobs.submission(payload=msgspec.Raw(b'{"a": 1}'), idempotency_key="k")
    )
    # The same payload, written differently.
    again = await jobs.queue.submit(
        jobs.project_id, jobs.submission(payload=msgspec.Raw(b'{ "a":1}'), idempotency_key="k")
    )
    assert (again.job.id, again.duplicate, first.duplicate) == (first.job.id, True, False)
    with pytest.raises(IdempotencyConflict) as refused:
        await jobs.pending(payload=msgspec.Raw(b'{"a": 2}'), idempotency_key="k")
    assert first.job.id in refused.value.message
    assert len(await all_jobs(jobs)) == 1


async def test_jobs_of_one_request_that_contradict_each_other_are_named(jobs: Jobs) -> None:
    payloads = {"k": b'{"a": 1}', "other": b'{"a": 1}', "k again": b'{ "a":1 }', "k changed": b'{"a": 2}'}
    batch = [
        jobs.submission(payload=msgspec.Raw(payload), idempotency_key=name.split()[0])
        for name, payload in payloads.items()
    ]
    with pytest.raises(
        IdempotencyKeyReused, match=r"\[0\] and \[3\] of the array have the idempotency key 'k'"
    ) as refused:
        await jobs.queue.submit_many(jobs.project_id, batch)
    assert (refused.value.param, await all_jobs(jobs)) == ("[3].idempotency_key", [])
    assert len(await jobs.queue.submit_many(jobs.project_id, batch[:3])) == 3


async def test_an_idempotency_key_sent_at_the_same_time_makes_one_job(jobs: Jobs) -> None:
    payload = msgspec.Raw(b"{}")
    stored = await asyncio.gather(*[jobs.pending(payload=payload, idempotency_key="k") for _ in range(40)])
    assert len({job.id for job in stored}) == 1
    many = await jobs.queue.submit_many(
        jobs.project_id, [jobs.submission(payload=payload, idempotency_key=key) for key in ("k", "l", "l")]
    )
    assert [one.duplicate for one in many] == [True, False, True]
    assert many[1].job.id == many[2].job.id


async def test_an_idempotency_key_hands_no_job_to_a_waiting_worker_twice(jobs: Jobs) -> None:
    payload = msgspec.Raw(b"{}")
    first = await jobs.pending(payload=payload, idempotency_key="k")
    assert await jobs.claim() is not None
    poll = asyncio.create_task(jobs.work.retrieve(jobs.deployment, WORKER, 0.3, never_disconnected))
    while not jobs.polls():
        await asyncio.sleep(0.001)
    assert (await jobs.pending(payload=payload, idempotency_key="k")).id == first.id
    assert await poll == []


async def test_a_payload_has_a_limit(jobs: Jobs) -> None:
    text = "x" * (PAYLOAD_LIMIT_BYTES - len('{"t":""}'))
    await jobs.pending(payload=msgspec.Raw(msgspec.json.encode({"t": text})))
    with pytest.raises(PayloadTooLarge):
        await jobs.pending(payload=msgspec.Raw(msgspec.json.encode({"t": text + "x"})))


async def test_an_ended_job_is_submitted_again_as_another(jobs: Jobs) -> None:
    claim = await jobs.running()
    await jobs.fail(claim.job.id, Holder(token=claim.token), "no luck")
    (again,) = await jobs.queue.resubmit(jobs.project_id, "hello", [claim.job.id])
    assert (again.resubmit_of, again.payload, again.info) == (claim.job.id, claim.job.payload, {})
    assert (await jobs.get(claim.job.id)).state is JobState.FAILED
    assert (await jobs.get(again.id)).state is JobState.PENDING


async def test_a_job_that_has_not_ended_is_not_submitted_again_and_nothing_beside_it(jobs: Jobs) -> None:
    claim = await jobs.running()
    await jobs.finish(claim.job.id, Holder(token=claim.token))
    pending = await jobs.pending()
    with pytest.raises(NotResubmittable) as refused:
        await jobs.queue.resubmit(jobs.project_id, "hello", [claim.job.id, pending.id])
    assert pending.id in refused.value.message
    with pytest.raises(NotFound):
        await jobs.queue.resubmit(jobs.project_id, "hello", [claim.job.id, "none-such"])
    assert len(await all_jobs(jobs)) == 2


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (b'{"a": 1, "b": 2}', b'{"b":2,"a":1}', True),
        (b'{"a": 1}', b'{"a": true}', False),
        (b'{"a": 1}', b'{"a": 1.0}', False),
        (b'{"a": 1e999}', b'{"a": 1e999}', True),
        (b'{"a": 1e999}', b'{"a": 1e998}', False),
    ],
)
async def test_payloads_are_the_same_where_they_say_the_same(
    jobs: Jobs, first: bytes, second: bytes, same: bool
) -> None:
    before = await jobs.pending(payload=msgspec.Raw(first), idempotency_key="k")
    if same:
        assert (await jobs.pending(payload=msgspec.Raw(second), idempotency_key="k")).id == before.id
    else:
        with pytest.raises(IdempotencyConflict):
            await jobs.pending(payload=msgspec.Raw(second), idempotency_key="k")


async def test_what_is_noted_about_a_job_has_a_limit(jobs: Jobs) -> None:
    with pytest.raises(PayloadTooLarge):
        await jobs.pending(info={"text": "x" * INFO_LIMIT_BYTES})
    claim = await jobs.running()
    holder = Holder(token=claim.token)
    await jobs.renew(claim.job.id, holder, first="x" * (INFO_LIMIT_BYTES // 2))
    with pytest.raises(PayloadTooLarge):
        await jobs.renew(claim.job.id, holder, second="x" * (INFO_LIMIT_BYTES // 2))
    await jobs.fail(claim.job.id, holder, "x" * (INFO_LIMIT_BYTES // 2))  # that it failed is known all the same
    failed = await jobs.get(claim.job.id)
    assert (failed.state, list(failed.info)) == (JobState.FAILED, ["error"])


async def test_the_jobs_of_a_deleted_deployment_are_found_also_where_there_is_a_new_one_of_its_name(
    jobs: Jobs, deployments: DeploymentService
) -> None:
    old = await jobs.pending()
    await deployments.delete(jobs.project_id, "hello")
    assert await jobs.queue.results(jobs.project_id, "hello", [old.id]) == [await jobs.get(old.id)]
    with pytest.raises(NotFound):
        await jobs.queue.results(jobs.project_id, "hello", ["nobody"])
    await deployments.create(jobs.project_id, {"name": "hello", "image": "i@sha256:1", "gpu_type": "none"})
    new = await jobs.pending()
    found = await jobs.queue.results(jobs.project_id, "hello", [new.id, old.id, "nobody"])
    assert [job.id for job in found] == [new.id, old.id]
    assert await jobs.queue.results(jobs.project_id, "hello", ["nobody"]) == []
    with pytest.raises(NotFound):
        await jobs.queue.resubmit(jobs.project_id, "hello", [old.id])


async def test_an_answer_has_a_limit(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machineshop.store.jobs.ANSWER_LIMIT_BYTES", 1000)
    payload = msgspec.Raw(msgspec.json.encode({"text": "x" * 300}))
    made = [await jobs.pending(payload=payload) for _ in range(5)]
    ids = [job.id for job in made]
    with pytest.raises(AnswerTooLarge):
        await jobs.queue.results(jobs.project_id, "hello", ids)
    assert len(await jobs.queue.results(jobs.project_id, "hello", ids, Include.NONE)) == 5
    assert len(await jobs.queue.results(jobs.project_id, "hello", [ids[0]] * 1000)) == 1
    pages: list[list[str]] = []
    before = None
    while True:
        page = await jobs.queue.list_page(jobs.project_id, "hello", JobFilter(), before, 100)
        pages.append([job.id for job in page.jobs])
        if not page.more:
            break
        before = page.jobs[-1].sequence
    assert [len(page) for page in pages] == [3, 2]
    assert [job_id for page in pages for job_id in page] == ids[::-1]
