"""Ended jobs are told to whom it was promised: signed, again and again until taken, no delivery twice."""

import asyncio
import logging

import pytest
from aiohttp import web

from factory import Clock, Jobs, eventually
from machineshop.api.job_view import job_view
from machineshop.config import parse_networks
from machineshop.control.deliverer import (
    CLAIM_SECONDS,
    MAX_PAUSE_SECONDS,
    MAX_SENDS,
    MAX_SENDS_PER_HOST,
    MAX_TRIES,
    chosen,
    pause_seconds,
)
from machineshop.control.loop import Loop
from machineshop.control.sender import TOTAL_SECONDS
from machineshop.services.targets import Targets
from machineshop.states import JobState, WebhookState
from machineshop.store import jobs as store_jobs
from machineshop.store import webhooks as store
from machineshop.store.database import Database
from machineshop.store.moves import Holder
from machineshop.store.webhooks import WEBHOOKS, DueWebhook, WebhookKey
from webhooks.outbox import Outbox
from webhooks.receiver import Receiver, receiving

ANYWHERE = Targets(parse_networks(["0.0.0.0/0", "::/0"]), loopback=True, own_port=lambda: 0)


async def test_a_job_that_is_done_is_told_with_a_signature(outbox: Outbox, receiver: Receiver) -> None:
    job = await outbox.done(receiver.url + "?a=b%20c", b'{"answer": 42}')
    assert await outbox.look() == 1
    (told,) = receiver.received
    assert (told.method, told.path) == ("POST", "/hook?a=b%20c")
    assert (told.id, told.delivery) == (f"{job.id}.1", f"{job.id}.1.1")
    assert told.headers["content-type"] == "application/json"
    assert int(told.headers["webhook-timestamp"]) == int(outbox.clock.now)
    secret = (await outbox.signing.of_project(job.project_id)).current
    assert told.headers["webhook-signature"] == told.signature(secret)
    assert told.job["status"] == "done"
    assert told.job["outputs"] == {"answer": 42}
    assert set(told.job) == set(job_view(await outbox.jobs.get(job.id)))
    webhook = await outbox.of(job)
    assert (webhook.tries, webhook.delivered_at, webhook.next_try_at) == (1, outbox.clock.now, None)
    assert webhook.state is WebhookState.DELIVERED
    assert webhook.error is None
    outbox.clock.now += 86400
    assert await outbox.look() == 0


async def test_every_end_is_told_once(outbox: Outbox, receiver: Receiver, jobs: Jobs) -> None:
    (canceled,) = await outbox.canceled(receiver.url, 1)
    failed = await jobs.pending(webhook_url=receiver.url)
    claim = await jobs.claim()
    assert claim is not None
    await jobs.release(claim.job.id, Holder(token=claim.token))  # no end
    claim = await jobs.claim()
    assert claim is not None
    await jobs.fail(failed.id, Holder(token=claim.token), "out of paper")
    late = await jobs.pending(webhook_url=receiver.url, deadline_seconds=1)
    outbox.clock.now += 2
    await jobs.upkeep.reclaim(outbox.clock.now)
    assert await outbox.look() == 3
    told = {one.id: one.job["status"] for one in receiver.received}
    assert told == {f"{canceled.id}.0": "canceled", f"{failed.id}.2": "failed", f"{late.id}.0": "failed"}


async def test_what_is_refused_is_sent_again_with_the_next_number(outbox: Outbox, receiver: Receiver) -> None:
    receiver.answering = receiver.status(500, 200, text="the database\n\x07is away")
    job = await outbox.done(receiver.url)
    assert await outbox.look() == 1
    refused = await outbox.of(job)
    assert (refused.tries, refused.delivered_at, refused.state) == (1, None, WebhookState.RETRYING)
    assert refused.error == "The receiver answered 500: the database is away"
    assert refused.next_try_at == pytest.approx(outbox.clock.now + 5)
    outbox.clock.now += 4.9
    assert await outbox.look() == 0
    outbox.clock.now += 0.2
    assert await outbox.look() == 1
    assert [one.delivery for one in receiver.received] == [f"{job.id}.1.1", f"{job.id}.1.2"]
    assert receiver.received[0].body == receiver.received[1].body
    taken = await outbox.of(job)
    assert (taken.tries, taken.delivered_at, taken.error) == (2, outbox.clock.now, None)


async def test_no_answer_is_waited_for_without_end(outbox: Outbox, receiver: Receiver) -> None:
    receiver.answering = receiver.never
    job = await outbox.done(receiver.url)
    await outbox.look(outbox.another(ANYWHERE, 0.1))
    webhook = await outbox.of(job)
    assert webhook.error == "There was no answer within 0.1 s."
    assert webhook.next_try_at == pytest.approx(outbox.clock.now + 5)


async def test_a_send_that_was_halted_before_it_began_is_not_made(outbox: Outbox, receiver: Receiver) -> None:
    await outbox.done(receiver.url)
    began = asyncio.get_running_loop().time() - TOTAL_SECONDS - 1
    answer = await outbox.deliverer._sender.send(receiver.url, {}, b"{}", began)
    assert answer.status is None
    assert receiver.received == []


async def test_a_receiver_that_is_not_there_is_tried_again(outbox: Outbox) -> None:
    async with receiving() as receiver:
        url = receiver.url
    job = await outbox.done(url)
    await outbox.look()
    webhook = await outbox.of(job)
    assert webhook.error == "No connection could be made: Connection refused."
    assert webhook.next_try_at is not None
    outbox.clock.now += 6
    await outbox.look()
    assert (await outbox.of(job)).tries == 2


async def test_a_receiver_that_hangs_up_or_talks_nonsense_is_tried_again(outbox: Outbox, receiver: Receiver) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    receiver.answering = hang_up
    broken = await outbox.done(receiver.url)
    await outbox.look()
    assert (await outbox.of(broken)).error == "The receiver closed the connection before it answered."
    no_tls = await outbox.done(receiver.url.replace("http:", "https:"))
    await outbox.look()
    assert (await outbox.of(no_tls)).error == "The receiver does not speak TLS as it should."

    async def nonsense(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"what?\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with server:
        job = await outbox.done(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await outbox.look()
    assert (await outbox.of(job)).error == "The receiver's answer is no HTTP."


async def test_gone_is_gone(outbox: Outbox, receiver: Receiver) -> None:
    receiver.answering = receiver.status(410)
    job = await outbox.done(receiver.url)
    await outbox.look()
    webhook = await outbox.of(job)
    assert (webhook.tries, webhook.next_try_at, webhook.delivered_at) == (1, None, None)
    assert webhook.state is WebhookState.GIVEN_UP
    assert webhook.error == "The receiver answered 410."
    outbox.clock.now += 86400
    assert await outbox.look() == 0


async def test_after_a_day_it_is_given_up_with_the_last_error(outbox: Outbox, receiver: Receiver) -> None:
    receiver.answering = receiver.status(500, text="no")
    job = await outbox.done(receiver.url)
    began = outbox.clock.now
    while (webhook := await outbox.of(job)).next_try_at is not None:
        outbox.clock.now = webhook.next_try_at
        assert await outbox.look() == 1
    assert webhook.tries == MAX_TRIES == len(receiver.received)
    assert webhook.error == "The receiver answered 500: no"
    assert outbox.clock.now - began == pytest.approx(86400, rel=0.05)


def test_pauses_double_up_to_an_hour_and_are_not_all_alike() -> None:
    assert [pause_seconds(tries, 0.5) for tries in (1, 2, 3, 10, 11, 1000)] == [5, 10, 20, 2560, 3600, 3600]
    assert pause_seconds(1, 0) == pytest.approx(4)
    assert pause_seconds(100, 1) == pytest.approx(1.2 * MAX_PAUSE_SECONDS)


async def test_redirects_are_not_followed(outbox: Outbox, receiver: Receiver) -> None:
    async with receiving() as inside:
        receiver.answering = receiver.status(302, headers={"Location": inside.url})
        job = await outbox.done(receiver.url)
        await outbox.look()
        assert inside.received == []
    webhook = await outbox.of(job)
    assert webhook.error == "The receiver answered 302, a redirect, which webhooks do not follow."
    assert webhook.next_try_at is not None


async def test_a_name_that_stands_for_a_private_address_is_refused(outbox: Outbox, receiver: Receiver) -> None:
    """As after a change of the name since the submit; `check_url` refuses this one by itself, so it is not asked."""
    targets = Targets([], loopback=False, own_port=lambda: 0)
    targets.check_url = lambda url: None  # type: ignore[method-assign]
    named = await outbox.done(receiver.url.replace("127.0.0.1", "localhost"))
    literal = await outbox.done(receiver.url)
    await outbox.look(outbox.another(targets))
    for job in (named, literal):
        webhook = await outbox.of(job)
        assert webhook.error == (
            "The URL may not be called: its host resolves to an address that webhooks may not go to. "
            "The server's setting --webhook-network allows networks."
        )
        assert webhook.next_try_at is not None
    assert receiver.received == []


async def test_a_private_address_in_the_url_is_refused_again_at_delivery(outbox: Outbox, receiver: Receiver) -> None:
    job = await outbox.done(receiver.url)
    await outbox.look(outbox.another(Targets([], loopback=False, own_port=lambda: 0)))
    assert "--webhook-network 127.0.0.1/32" in str((await outbox.of(job)).error)
    assert receiver.received == []


async def test_a_name_that_stands_for_an_allowed_address_is_called(outbox: Outbox, receiver: Receiver) -> None:
    await outbox.done(receiver.url.replace("127.0.0.1", "localhost"))
    await outbox.look(outbox.another(Targets(parse_networks(["127.0.0.1/32"]), loopback=False, own_port=lambda: 0)))
    assert len(receiver.received) == 1


async def test_an_answer_without_end_is_not_read(outbox: Outbox, receiver: Receiver) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=503)
        await response.prepare(request)
        while True:
            await response.write(b"again " * 1000)

    receiver.answering = endless
    job = await outbox.done(receiver.url)
    await outbox.look()
    error = (await outbox.of(job)).error
    assert error is not None
    assert error.startswith("The receiver answered 503: again again")
    assert len(error) < 250


async def test_a_large_result_is_told_whole(outbox: Outbox, receiver: Receiver) -> None:
    text = "x" * (3 * 1024 * 1024)
    job = await outbox.done(receiver.url, b'{"text": "' + text.encode() + b'"}')
    await outbox.look()
    assert receiver.received[0].job["outputs"]["text"] == text
    assert (await outbox.of(job)).delivered_at is not None


async def test_sends_are_bounded_and_one_slow_host_holds_nobody_up(outbox: Outbox, receiver: Receiver) -> None:
    receiver.answering = receiver.never
    await outbox.canceled(receiver.url, MAX_SENDS + 5)  # they wait longer than the others
    outbox.clock.now += 1
    async with receiving("127.0.0.2") as other:
        await outbox.canceled(other.url, MAX_SENDS + 5)
        deliverer = outbox.deliverer
        deliverer.on_room(lambda: None)
        assert await deliverer.run_once(outbox.clock.now) == 2 * MAX_SENDS_PER_HOST
        await receiver.until(MAX_SENDS_PER_HOST)
        while len(other.received) < MAX_SENDS + 5:
            await eventually(lambda: len(deliverer._sends) == MAX_SENDS_PER_HOST)
            await deliverer.run_once(outbox.clock.now)
            await other.until(1)
        assert other.most_open <= MAX_SENDS_PER_HOST
    assert len(receiver.received) == receiver.most_open == MAX_SENDS_PER_HOST


def test_what_is_chosen_fits() -> None:
    due = [DueWebhook(WebhookKey(f"{host}{n}", 1), host) for host in "ab" for n in range(6)]
    keys = chosen(due, {WebhookKey("a0", 1)}, {"a": 1}, 6)
    assert [key.job_id for key in keys] == ["a1", "a2", "a3", "b0", "b1", "b2"]
    assert chosen(due, set(), {"a": 4, "b": 4}, 20) == []
    assert len(chosen(due, set(), {}, 3)) == 3


async def test_what_a_crash_cut_off_is_sent_as_the_next_try(outbox: Outbox, receiver: Receiver) -> None:
    receiver.answering = receiver.never
    job = await outbox.done(receiver.url)
    crashed = outbox.another(ANYWHERE)
    await crashed.run_once(outbox.clock.now)
    await receiver.until(1)
    for task in crashed._tasks:
        task.cancel()
    await crashed.settled()
    receiver.answering = receiver.status(200)
    outbox.clock.now += CLAIM_SECONDS - 0.1
    assert await outbox.look() == 0
    outbox.clock.now += 0.2
    assert await outbox.look() == 1
    assert [one.delivery for one in receiver.received] == [f"{job.id}.1.1", f"{job.id}.1.2"]
    assert (await outbox.of(job)).tries == 2


async def test_a_row_on_its_way_is_not_sent_again_whatever_the_clock_does(outbox: Outbox, receiver: Receiver) -> None:
    receiver.answering = receiver.never
    await outbox.done(receiver.url)
    await outbox.deliverer.run_once(outbox.clock.now)
    outbox.clock.now += 86400
    assert await outbox.deliverer.run_once(outbox.clock.now) == 0
    await receiver.until(1)


async def test_two_servers_send_each_row_once(outbox: Outbox, receiver: Receiver) -> None:
    jobs = await outbox.canceled(receiver.url, 60)
    deliverers = [outbox.deliverer, outbox.another(ANYWHERE)]
    while sum(await asyncio.gather(*(deliverer.run_once(outbox.clock.now) for deliverer in deliverers))):
        await asyncio.gather(*(deliverer.settled() for deliverer in deliverers))
    assert sorted(one.delivery for one in receiver.received) == sorted(f"{job.id}.0.1" for job in jobs)


async def test_a_try_that_was_overtaken_changes_nothing(outbox: Outbox, database: Database, clock: Clock) -> None:
    job = await outbox.done("http://127.0.0.1:1/")
    key = WebhookKey(job.id, 1)
    (first,) = await database.write(store.take, [key], clock.now, clock.now + 30)
    assert await database.write(store.take, [key], clock.now, clock.now + 30) == []
    (second,) = await database.write(store.take, [key], clock.now + 31, clock.now + 61)
    assert (first.number, second.number) == (1, 2)
    assert not await database.write(store.postpone, first, None, "late")
    assert not await database.write(store.deliver, first, clock.now)
    assert await database.write(store.deliver, second, clock.now)
    assert not await database.write(store.postpone, second, clock.now, "twice")
    assert (await outbox.of(job)).error is None


async def test_it_is_sent_as_soon_as_the_job_has_ended(outbox: Outbox, database: Database, receiver: Receiver) -> None:
    loop = Loop("deliver", outbox.deliverer.run_once, 3600, outbox.clock)
    database.on_announced(WEBHOOKS, loop.wake)
    outbox.deliverer.on_room(loop.wake)
    loop.start()
    try:
        await outbox.canceled(receiver.url, 50)  # more than fit at once
        await receiver.until(50)
        await outbox.done(receiver.url)
        await receiver.until(51)
    finally:
        await loop.stop()


async def test_what_was_told_goes_with_its_job_and_what_was_not_keeps_it(
    outbox: Outbox, database: Database, receiver: Receiver, jobs: Jobs
) -> None:
    receiver.answering = receiver.status(500, 200)
    job = await outbox.done(receiver.url)
    assert job.state is JobState.PENDING
    await outbox.look()
    outbox.clock.now += 10
    remove = (jobs.deployment.id, 0, outbox.clock.now, 1000)
    assert await database.write(store_jobs.remove_old, *remove) == 0
    await outbox.look()
    assert await database.write(store_jobs.remove_old, *remove) == 1
    assert await database.read(store.of_job, job.id) == []


async def test_no_log_names_a_secret_or_a_url(
    outbox: Outbox, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver.answering = receiver.status(500, 410)
    job = await outbox.done(receiver.url + "?token=of-the-receiver")
    await outbox.look()
    outbox.clock.now += 10
    await outbox.look()
    secrets = await outbox.signing.of_project(job.project_id)
    assert "webhook.postponed" in caplog.text
    assert "webhook.given_up" in caplog.text
    for hidden in (secrets.current, secrets.current[6:], "of-the-receiver"):
        assert hidden not in caplog.text
        assert hidden not in repr(secrets)
