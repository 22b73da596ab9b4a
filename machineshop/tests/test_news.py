"""What another server has written is passed on to those who wait here, once for many."""

import asyncio
import time

import pytest

from factory import WORKER, Jobs, eventually, never_disconnected
from machineshop.errors import StoreUnavailable
from machineshop.ids import new_id
from machineshop.services.news import News
from machineshop.services.queue import QueueService
from machineshop.services.submissions import new_job
from machineshop.store import jobs as store


async def test_a_job_of_another_server_goes_to_a_worker_that_waits_here(queue: QueueService, jobs: Jobs) -> None:
    news = News(queue)
    news.start()
    polling = asyncio.ensure_future(jobs.work.retrieve(jobs.deployment, WORKER, 20, never_disconnected))
    await eventually(jobs.polls)
    job = new_job(jobs.deployment, jobs.submission(), new_id(), time.time())
    # As another server stores it: nobody here is told.
    await queue._database.write_in_queue(jobs.deployment.id, store.insert, [job])
    assert not polling.done()
    news.heard(jobs.deployment.id)
    (claim,) = await asyncio.wait_for(polling, 60)
    assert claim.job.id == job.id
    await news.close()


async def test_after_a_gap_everybody_who_waits_is_served(queue: QueueService, jobs: Jobs) -> None:
    news = News(queue)
    news.start()
    polling = asyncio.ensure_future(jobs.work.retrieve(jobs.deployment, WORKER, 20, never_disconnected))
    await eventually(jobs.polls)
    job = new_job(jobs.deployment, jobs.submission(), new_id(), time.time())
    with queue.changes.followed(jobs.deployment.id) as changed:
        await queue._database.write_in_queue(jobs.deployment.id, store.insert, [job])
        news.missed()
        (claim,) = await asyncio.wait_for(polling, 60)
        assert claim.job.id == job.id
        await asyncio.wait_for(changed.wait(), 60)
    await news.close()


async def test_much_news_of_one_queue_is_one_more_look(queue: QueueService, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def look(deployment_id: str) -> None:
        looks.append(deployment_id)
        begun.set()
        await go_on.wait()

    monkeypatch.setattr(queue, "look_again", look)
    news = News(queue)
    news.start()
    news.heard("a")
    await begun.wait()
    for _ in range(1000):
        news.heard("a")
        news.heard("b")
    go_on.set()
    await eventually(lambda: len(looks) == 3)
    await asyncio.sleep(0.05)
    assert looks == ["a", "a", "b"]
    await news.close()


async def test_news_outlive_a_store_that_is_away(queue: QueueService, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []

    async def look(deployment_id: str) -> None:
        looks.append(deployment_id)
        if len(looks) == 1:
            raise StoreUnavailable("It is away.")

    monkeypatch.setattr("machineshop.services.news.RETRY_SECONDS", 0.01)
    monkeypatch.setattr(queue, "look_again", look)
    news = News(queue)
    news.start()
    news.heard("a")
    await eventually(lambda: looks == ["a", "a"])
    await news.close()
