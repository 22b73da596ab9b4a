"""What an attempt uploads is seen once its result is stored, and never if it is stale."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import httpx
import pytest
from sqlalchemy import text

from factory import ADMIN_KEY, eventually
from files.shop import CLAIM_SECONDS, LIMIT_BYTES, Replica, Shop, output
from machineshop.ids import new_id
from machineshop.models import Claim, Deployment, Scope
from machineshop.services.deployments import DeploymentService
from machineshop.services.leftovers import LEFTOVER_SECONDS
from machineshop.states import JobState, JobVerb
from machineshop.store.losses import MAX_RETRIES

# What no database does in a way of its own.
ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def replica(shop: Shop) -> Replica:
    return await shop.replica("replica-1")


@pytest.fixture
async def other(shop: Shop) -> Replica:
    """Another replica of the same deployment."""
    return await shop.replica("replica-2")


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


async def nothing_is_left(shop: Shop) -> None:
    await shop.clean()
    assert (await shop.rows(), shop.blobs(), shop.uploads()) == (set(), set(), 0)


async def seen_as(shop: Shop, name: str, content: bytes | None) -> None:
    """Every way to look at a file says the same."""
    async with httpx.AsyncClient(base_url=f"http://{shop.host}", verify=False) as client:
        for key in (ADMIN_KEY, (await shop.identity.create_key("default", "another", Scope.DEVELOPER))[1]):
            for method in ("GET", "HEAD"):
                answer = await client.request(method, f"/v1/storage/{name}", headers={"Authorization": f"Bearer {key}"})
                assert answer.status_code == (404 if content is None else 200)
    assert await shop.read(name) == content


# When a file becomes visible.


async def test_a_file_becomes_visible_with_its_jobs_result(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    await replica.upload(claim, "a.png", b"picture")
    await replica.upload(claim, "b.json", b"boxes")
    user = shop.client()
    await seen_as(shop, output(claim, "a.png"), None)
    assert (await replica.client.get(f"/v1/storage/{output(claim, 'a.png')}")).status_code == 404
    assert (await user.delete(f"/v1/storage/{output(claim, 'a.png')}")).status_code == 404

    await replica.finish(claim)

    await seen_as(shop, output(claim, "a.png"), b"picture")
    await seen_as(shop, output(claim, "b.json"), b"boxes")
    assert await shop.clean() == 0
    assert shop.blobs() == await shop.rows()
    assert (await user.delete(f"/v1/storage/{output(claim, 'a.png')}")).status_code == 200
    assert len(shop.blobs()) == 1


async def test_whoever_sees_the_result_sees_all_files(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    names = [f"{number}.txt" for number in range(5)]
    for name in names:
        await replica.upload(claim, name, name.encode())
    finishing = asyncio.create_task(replica.finish(claim))
    async with asyncio.timeout(60):
        while (await shop.jobs.get(claim.job.id)).state is not JobState.DONE:
            pass
    assert [await shop.read(output(claim, name)) for name in names] == [name.encode() for name in names]
    await finishing


async def test_an_upload_replaces_the_one_of_its_name_in_the_same_attempt(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    await replica.upload(claim, "a", b"first")
    await replica.upload(claim, "a", b"second")
    assert len(shop.blobs()) == 1
    await asyncio.gather(*(replica.upload(claim, "a", b"again") for _ in range(5)))
    assert len(shop.blobs()) == 1
    await replica.finish(claim)
    assert await shop.read(output(claim, "a")) == b"again"


async def test_a_jobs_file_takes_the_place_of_a_users(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    user = shop.client()
    answer = await user.post("/v1/storage/upload-request", json={"filename": output(claim, "a")})
    await replica.put(answer.json()["upload_url"]["url"], b"the user's")
    await replica.upload(claim, "a", b"the job's")
    assert await shop.read(output(claim, "a")) == b"the user's"

    await replica.finish(claim)

    assert await shop.read(output(claim, "a")) == b"the job's"
    assert len(shop.blobs()) == 2
    assert await shop.clean() == 1
    assert shop.blobs() == await shop.rows()
    assert await shop.read(output(claim, "a")) == b"the job's"


@ON_ONE_DATABASE
async def test_a_refused_result_shows_no_files(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    await replica.upload(claim, "a", b"a")
    await shop.upkeep.lose_replica("replica-1")
    with pytest.raises(Exception, match="no longer holds the job"):
        await replica.finish(claim)
    await seen_as(shop, output(claim, "a"), None)
    await nothing_is_left(shop)


# Attempts that end otherwise.


async def fail(shop: Shop, replica: Replica, claim: Claim) -> None:
    await replica.say(JobVerb.FAIL, claim)


async def release(shop: Shop, replica: Replica, claim: Claim) -> None:
    await replica.say(JobVerb.RELEASE, claim)


async def abandon(shop: Shop, replica: Replica, claim: Claim) -> None:
    await shop.queue.cancel(shop.deployment.project_id, "hello", claim.job.id)
    await replica.say(JobVerb.ABANDON, claim)


async def force(shop: Shop, replica: Replica, claim: Claim) -> None:
    await shop.queue.cancel(shop.deployment.project_id, "hello", claim.job.id, 5)
    shop.clock.now += 6
    assert await shop.upkeep.reclaim(shop.clock.now) == {"replica-1"}


async def expire(shop: Shop, replica: Replica, claim: Claim) -> None:
    shop.clock.now += CLAIM_SECONDS + 1
    await shop.upkeep.reclaim(shop.clock.now)


async def die(shop: Shop, replica: Replica, claim: Claim) -> None:
    await shop.upkeep.lose_replica("replica-1")


async def overrun(shop: Shop, replica: Replica, claim: Claim) -> None:
    shop.clock.now += 61
    await shop.upkeep.reclaim(shop.clock.now)


ENDS = [fail, release, abandon, force, expire, die, overrun]


@ON_ONE_DATABASE
@pytest.mark.parametrize("end", ENDS)
async def test_files_of_an_attempt_that_ends_without_a_result_are_garbage(
    shop: Shop, replica: Replica, end: Callable[[Shop, Replica, Claim], Awaitable[None]]
) -> None:
    await shop.jobs.pending(deadline_seconds=60 if end is overrun else None)
    claim = await replica.claim()
    url = await replica.url(claim, "later")
    await replica.upload(claim, "a", b"a")
    under_way = await replica.begin_upload(claim, "b", b"bb")
    assert await shop.clean() == 0, "an attempt that runs keeps its files"
    assert len(shop.blobs()) == 1

    await end(shop, replica, claim)

    assert await shop.clean() == 1
    refused(await under_way.end(), 409, "stale_attempt")
    refused(await replica.put(url, b"c"), 409, "stale_attempt")
    refused(await replica.ask(claim, "c"), 409, "stale_attempt")
    assert (shop.blobs(), await shop.rows(), shop.uploads()) == (set(), set(), 0)
    for name in ("a", "b", "c", "later"):
        await seen_as(shop, output(claim, name), None)


@ON_ONE_DATABASE
async def test_a_job_that_is_given_up_leaves_no_files(shop: Shop, replica: Replica) -> None:
    job = await shop.jobs.pending()
    for _ in range(MAX_RETRIES + 1):
        claim = await replica.claim()
        await replica.upload(claim, "a", b"a")
        await shop.upkeep.lose_replica("replica-1")
    assert (await shop.jobs.get(job.id)).state is JobState.FAILED
    assert len(shop.blobs()) == MAX_RETRIES + 1
    await nothing_is_left(shop)


async def test_only_the_attempt_with_the_result_shows_its_file_of_a_name(
    shop: Shop, replica: Replica, other: Replica
) -> None:
    first = await replica.take_new()
    await replica.upload(first, "a", b"stale")
    await replica.upload(first, "only-stale", b"stale")
    under_way = await replica.begin_upload(first, "a", b"stale, and later")
    await replica.say(JobVerb.RELEASE, first)

    second = await other.claim()
    assert second.job.id == first.job.id
    await other.upload(second, "a", b"fresh")
    assert await shop.clean() == 2, "those of the attempt that is over go while the next one runs"
    refused(await under_way.end(), 409, "stale_attempt")
    await other.finish(second)

    assert await shop.read(output(first, "a")) == b"fresh"
    assert await shop.read(output(first, "only-stale")) is None
    await shop.clean()
    assert await shop.read(output(first, "a")) == b"fresh"
    assert len(shop.blobs()) == 1
    assert shop.blobs() == await shop.rows()


@ON_ONE_DATABASE
async def test_an_upload_that_outlives_its_attempt_does_not_hit_the_next_one_of_the_same_replica(
    shop: Shop, replica: Replica
) -> None:
    first = await replica.take_new()
    under_way = await replica.begin_upload(first, "a", b"stale")
    await shop.upkeep.lose_replica("replica-1")
    second = await replica.claim()
    await replica.upload(second, "a", b"fresh")
    refused(await under_way.end(), 409, "stale_attempt")
    await replica.finish(second)
    assert await shop.read(output(first, "a")) == b"fresh"


async def test_an_attempt_that_is_lost_while_its_upload_is_being_stored_keeps_nothing(
    shop: Shop, replica: Replica, other: Replica
) -> None:
    first = await replica.take_new()
    under_way = await replica.begin_upload(first, "a", b"stale")
    held = threading.Event()
    holding = asyncio.create_task(shop.database.write(lambda _conn: held.wait(60)))
    try:
        releasing = asyncio.create_task(replica.say(JobVerb.RELEASE, first))
        claiming = asyncio.create_task(other.claim())
        await asyncio.sleep(0)  # both are on their way to the store
        uploading = asyncio.create_task(under_way.end())
        await eventually(lambda: len(shop.blobs()) == 1)
    finally:
        held.set()
    await asyncio.gather(holding, releasing)
    second = await claiming
    assert (second.job.id, second.job.attempt) == (first.job.id, 2)
    refused(await uploading, 409, "stale_attempt")
    await other.finish(second)
    await seen_as(shop, output(first, "a"), None)
    await nothing_is_left(shop)


@ON_ONE_DATABASE
async def test_an_upload_that_ends_after_the_result_is_refused(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    under_way = await replica.begin_upload(claim, "a", b"late")
    await replica.finish(claim)
    refused(await under_way.end(), 409, "stale_attempt")
    await seen_as(shop, output(claim, "a"), None)
    await nothing_is_left(shop)


@ON_ONE_DATABASE
async def test_clean_leaves_an_upload_alone_that_is_under_way(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    under_way = await replica.begin_upload(claim, "a", b"in time")
    assert await shop.clean() == 0
    assert (await under_way.end()).status_code == 200
    assert await shop.clean() == 0
    await replica.finish(claim)
    assert await shop.read(output(claim, "a")) == b"in time"


@ON_ONE_DATABASE
async def test_files_of_an_attempt_that_runs_for_long_are_kept(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    await replica.upload(claim, "a", b"early")
    assert await shop.files.clean(shop.clock.now + LEFTOVER_SECONDS + 60) == 0
    await replica.finish(claim)
    assert await shop.read(output(claim, "a")) == b"early"


@ON_ONE_DATABASE
async def test_a_file_that_is_too_large_leaves_nothing(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    refused(await replica.put(await replica.url(claim, "a"), b"x" * (LIMIT_BYTES + 1)), 413, "payload_too_large")
    await replica.finish(claim)
    await seen_as(shop, output(claim, "a"), None)
    await nothing_is_left(shop)


# Who may upload what.


async def ask(client: httpx.AsyncClient, filename: str, **fields: object) -> httpx.Response:
    return await client.post("/v1/storage/upload-request", json={"filename": filename, **fields})


@ON_ONE_DATABASE
async def test_a_worker_key_uploads_nothing_that_is_no_jobs(replica: Replica) -> None:
    for filename in ("made.txt", "a/b.txt", "-a", "x" * 40, f"{new_id()}-a", new_id()):
        refused(await ask(replica.client, filename), 403, "not_a_jobs_file")


@ON_ONE_DATABASE
async def test_a_worker_key_names_its_files_after_its_job(shop: Shop, replica: Replica) -> None:
    claim, another = await replica.take_new(), await replica.take_new()
    for filename in ("model.bin", output(another, "a"), f"{claim.job.id}", f"x{claim.job.id}-a"):
        refused(await replica.ask(claim, "", filename=filename), 403, "not_a_jobs_file")
    answer = await ask(replica.client, "model.bin", request_id="", attempt_token=claim.token)
    refused(answer, 403, "not_a_jobs_file")


async def test_an_older_worker_is_known_by_the_files_name(shop: Shop, replica: Replica, other: Replica) -> None:
    first = await replica.take_new()
    answer = await ask(replica.client, output(first, "a"))
    url = answer.json()["upload_url"]["url"]
    assert (await replica.put(url, b"older")).status_code == 200
    refused(await ask(other.client, output(first, "a")), 409, "stale_attempt")
    await replica.say(JobVerb.RELEASE, first)
    refused(await ask(replica.client, output(first, "a")), 409, "stale_attempt")
    second = await replica.claim()
    refused(await replica.put(url, b"of the attempt before"), 409, "stale_attempt")
    url = (await ask(replica.client, output(second, "a"))).json()["upload_url"]["url"]
    assert (await replica.put(url, b"newer")).status_code == 200
    await replica.finish(second)
    assert await shop.read(output(second, "a")) == b"newer"
    refused(await ask(replica.client, output(second, "a")), 409, "stale_attempt")


async def test_a_worker_key_uploads_only_for_what_its_replica_holds(
    shop: Shop, replica: Replica, other: Replica, deployments: DeploymentService
) -> None:
    claim = await replica.take_new()
    refused(await other.ask(claim, "a"), 409, "stale_attempt")
    refused(await replica.ask(claim, "a", attempt_token="of-somebody-else"), 409, "stale_attempt")
    elsewhere = await deployments.create(
        shop.deployment.project_id, {"name": "other", "image": "registry/ns/other@sha256:1", "gpu_type": "none"}
    )
    refused(await (await shop.replica("replica-1", elsewhere)).ask(claim, "a"), 409, "stale_attempt")
    waiting = await shop.jobs.pending()
    answer = await ask(replica.client, f"{waiting.id}-a", request_id=waiting.id)
    refused(answer, 409, "stale_attempt")
    assert "pending" in answer.json()["error"]["message"]


@ON_ONE_DATABASE
async def test_another_projects_job_does_not_exist(
    shop: Shop, replica: Replica, deployments: DeploymentService
) -> None:
    key, rival = await shop.identity.create_key("rival", "rival", Scope.DEVELOPER)
    theirs = await deployments.create(
        key.project_id, {"name": "hello", "image": "registry/ns/hello@sha256:1", "gpu_type": "none"}
    )
    claim = await (await shop.replica("replica-1", theirs)).take_new()
    mine = await replica.take_new()
    refused(await replica.ask(claim, "a"), 404, "not_found")
    refused(await ask(replica.client, output(claim, "a")), 403, "not_a_jobs_file")
    for fields in ({"request_id": mine.job.id, "attempt_token": mine.token}, {"request_id": mine.job.id}):
        refused(await ask(shop.client(rival), output(mine, "a"), **fields), 404, "not_found")


@ON_ONE_DATABASE
async def test_a_worker_with_a_users_key_is_fenced_where_it_says_its_attempt(shop: Shop, replica: Replica) -> None:
    user = shop.client()
    claim = await shop.jobs.running()
    answer = await ask(user, output(claim, "a"), request_id=claim.job.id, attempt_token=claim.token)
    assert (await replica.put(answer.json()["upload_url"]["url"], b"a")).status_code == 200
    assert await shop.read(output(claim, "a")) is None
    refused(await ask(user, "a", request_id=claim.job.id, attempt_token="another"), 409, "stale_attempt")
    answer = await ask(user, "a", attempt_token=claim.token)
    refused(answer, 400, "invalid_request")
    assert answer.json()["error"]["param"] == "request_id"
    await shop.jobs.finish(claim.job.id, replica.holder.__class__(token=claim.token))
    assert await shop.read(output(claim, "a")) == b"a"


@ON_ONE_DATABASE
async def test_a_users_key_alone_is_seen_at_once_also_under_a_jobs_name(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    url = (await ask(shop.client(), output(claim, "a"))).json()["upload_url"]["url"]
    assert (await replica.put(url, b"now")).status_code == 200
    assert await shop.read(output(claim, "a")) == b"now"


@ON_ONE_DATABASE
async def test_malformed_fields_are_refused(shop: Shop) -> None:
    for name, value in (("request_id", 1), ("attempt_token", ["x"]), ("request_id", "x" * 256)):
        answer = await ask(shop.client(), "a", **{name: value})
        refused(answer, 400, "malformed_body")
        assert answer.json()["error"]["param"] == name


@ON_ONE_DATABASE
async def test_the_signature_covers_job_and_attempt(shop: Shop, replica: Replica) -> None:
    claim, another = await replica.take_new(), await replica.take_new()
    url = await replica.url(claim, "a")
    assert f"job={claim.job.id}&attempt=1&signature=" in url
    for wrong in (
        url.replace("attempt=1", "attempt=2"),
        url.replace("attempt=1", "attempt=-1"),
        url.replace("attempt=1&", ""),
        url.replace(f"job={claim.job.id}", f"job={another.job.id}"),
        url.replace(f"job={claim.job.id}&", ""),
        url.replace(f"job={claim.job.id}&attempt=1&", ""),
        url.replace(f"{claim.job.id}-a", f"{another.job.id}-a"),
        url.replace(f"{claim.job.id}-a", "model.bin"),
    ):
        assert wrong != url
        refused(await replica.put(wrong, b"x"), 403, "signature_invalid")
    plain = (await ask(shop.client(), output(claim, "a"))).json()["upload_url"]["url"]
    refused(await replica.put(f"{plain}&job={claim.job.id}&attempt=1", b"x"), 403, "signature_invalid")
    assert (shop.blobs(), shop.uploads()) == (set(), 0)


# What is cleared away later.


async def test_outputs_go_with_their_job(shop: Shop, replica: Replica) -> None:
    old, kept = await replica.take_new(), await replica.take_new()
    for claim in (old, kept):
        await replica.upload(claim, "a", b"a")
        await replica.upload(claim, "b", b"b")
        await replica.finish(claim)
        shop.clock.now += 100
    url = (await ask(shop.client(), output(old, "b"))).json()["upload_url"]["url"]
    await replica.put(url, b"a user's now")
    await shop.queue.change_settings(shop.deployment.project_id, "hello", {"keep_count": 1}, {})
    assert await shop.upkeep.clean(shop.clock.now) == 1

    assert await shop.clean() == 1

    assert await shop.read(output(old, "a")) is None
    assert await shop.read(output(old, "b")) == b"a user's now"
    assert await shop.read(output(kept, "a")) == b"a"
    assert len(shop.blobs()) == 3
    assert shop.blobs() == await shop.rows()


async def test_all_outputs_are_looked_at_in_turn(shop: Shop, replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machineshop.services.leftovers._JOBS_AT_A_TIME", 2)
    for _ in range(5):
        claim = await replica.take_new()
        await replica.upload(claim, "a", b"a")
        await replica.finish(claim)
    await shop.database.write(lambda conn: conn.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": claim.job.id}))
    assert [await shop.clean() for _ in range(4)] == [0, 0, 1, 0]
    assert len(shop.blobs()) == 4


async def test_an_attempt_whose_job_is_gone_leaves_nothing(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    await replica.upload(claim, "a", b"a")
    under_way = await replica.begin_upload(claim, "b", b"bb")
    await replica.say(JobVerb.FAIL, claim)
    await shop.queue.change_settings(shop.deployment.project_id, "hello", {"keep_count": 0}, {})
    assert await shop.upkeep.clean(shop.clock.now) == 1
    refused(await under_way.end(), 409, "stale_attempt")
    await nothing_is_left(shop)


async def test_many_files_of_ended_attempts_are_removed(
    shop: Shop, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.services.leftovers._BATCH", 3)
    claim = await replica.take_new()
    for number in range(10):
        await replica.upload(claim, f"{number}", b"x")
    await replica.say(JobVerb.FAIL, claim)
    assert await shop.clean() == 10
    assert (shop.blobs(), await shop.rows()) == (set(), set())


@ON_ONE_DATABASE
async def test_a_deployments_deletion_leaves_no_files(
    shop: Shop, replica: Replica, deployments: DeploymentService
) -> None:
    claim = await replica.take_new()
    await replica.upload(claim, "a", b"a")
    deleted: Deployment = await deployments.delete(shop.deployment.project_id, "hello")
    await shop.upkeep.end_all(deleted.id)
    await nothing_is_left(shop)
