"""Whenever the server is killed or loses its store, no file is lost and none stays behind for ever."""

import asyncio
import json
import signal
import sys
import threading
import time
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from factory import eventually
from files import crashing_upload
from files.shop import Replica, Shop, output
from machineshop.errors import StoreUnavailable
from machineshop.services.files import FileService
from machineshop.services.leftovers import DOUBT_SECONDS, LEFTOVER_SECONDS
from machineshop.states import JobVerb


@pytest.fixture
async def replica(shop: Shop) -> Replica:
    return await shop.replica("replica-1")


async def crash(shop: Shop, database_url: str, moment: str, url: str | None = None) -> None:
    """Have another process on the same data take an upload in, or clean, and die."""
    upload = None
    if url is not None:
        parts = urlsplit(url)
        project_id, name = parts.path.removeprefix("/v1/storage/signed/").split("/", 1)
        upload = {"project_id": project_id, "name": unquote(name), "query": dict(parse_qsl(parts.query))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, crashing_upload.__file__, database_url, str(shop.folder), moment, json.dumps(upload)
    )
    async with asyncio.timeout(60):
        assert await process.wait() == -signal.SIGKILL


async def restart(shop: Shop) -> int:
    """The first look of the server that comes after; returns how much it removed."""
    shop.clock.now = time.time() + 1
    return await shop.new_service().clean(shop.clock.now)


@pytest.mark.parametrize(
    ("moment", "left", "kept"), [("received", 1, False), ("published", 1, False), ("stored", 0, True)]
)
async def test_a_kill_in_the_middle_of_an_attempts_upload(
    shop: Shop, replica: Replica, database_url: str, moment: str, left: int, kept: bool
) -> None:
    claim = await replica.take_new()
    await crash(shop, database_url, moment, await replica.url(claim, "a"))
    assert shop.uploads() + len(shop.blobs() - await shop.rows()) == left
    assert await restart(shop) == left
    assert shop.uploads() == 0
    assert shop.blobs() == await shop.rows()
    await replica.finish(claim)
    assert await shop.read(output(claim, "a")) == (b"content" if kept else None)


async def test_a_kill_before_a_replaced_upload_is_deleted(shop: Shop, replica: Replica, database_url: str) -> None:
    claim = await replica.take_new()
    await replica.upload(claim, "a", b"first")
    await crash(shop, database_url, "stored", await replica.url(claim, "a"))
    assert len(shop.blobs()) == 2
    assert await restart(shop) == 1
    await replica.finish(claim)
    assert await shop.read(output(claim, "a")) == b"content"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("moment", ["deleted", "before deletes"])
async def test_a_kill_while_files_of_an_ended_attempt_are_removed(
    shop: Shop, replica: Replica, database_url: str, moment: str
) -> None:
    claim = await replica.take_new()
    for name in ("a", "b"):
        await replica.upload(claim, name, b"x")
    await replica.say(JobVerb.FAIL, claim)
    await crash(shop, database_url, moment)
    assert len(await shop.rows()) == 2, "rows go last: they know what is to be removed"
    assert await restart(shop) == 2
    assert (shop.blobs(), await shop.rows()) == (set(), set())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("moment", ["deleted", "before deletes"])
async def test_a_kill_while_files_of_a_job_that_is_gone_are_removed(
    shop: Shop, replica: Replica, database_url: str, moment: str
) -> None:
    claim = await replica.take_new()
    for name in ("a", "b"):
        await replica.upload(claim, name, b"x")
    await replica.finish(claim)
    await shop.queue.change_settings(shop.deployment.project_id, "hello", {"keep_count": 0}, {})
    assert await shop.upkeep.clean(shop.clock.now) == 1
    await crash(shop, database_url, moment)
    assert await shop.rows() == set(), "rows go first: nobody finds a file without its bytes"
    assert await restart(shop) == len({"deleted": "a", "before deletes": "ab"}[moment])
    assert shop.blobs() == set()


async def test_an_upload_that_the_store_could_not_take_is_looked_at_again(
    shop: Shop, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await replica.take_new()
    url = await replica.url(claim, "a")
    with monkeypatch.context() as patch:
        patch.setattr(shop.database, "_closing", True)
        assert (await replica.put(url, b"a")).status_code == 503
    assert await shop.clean() == 0
    assert len(shop.blobs()) == 1
    shop.clock.now += DOUBT_SECONDS
    assert await shop.clean() == 1
    assert shop.blobs() == set()


async def test_an_upload_whose_commit_is_not_heard_of_keeps_its_bytes(
    shop: Shop, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await replica.take_new()
    url = await replica.url(claim, "a")
    write = shop.database.write_in_queue

    async def commit_unheard(*args: Any) -> None:
        await write(*args)
        raise StoreUnavailable("The connection broke before the answer came.")

    with monkeypatch.context() as patch:
        patch.setattr(shop.database, "write_in_queue", commit_unheard)
        assert (await replica.put(url, b"a")).status_code == 503
    shop.clock.now += DOUBT_SECONDS
    assert await shop.clean() == 0
    await replica.finish(claim)
    assert await shop.read(output(claim, "a")) == b"a"


async def test_a_sweep_leaves_a_blob_alone_whose_row_is_about_to_be_stored(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    url = await replica.url(claim, "a")
    busy = threading.Event()
    holding = asyncio.create_task(shop.database.write(lambda _conn: busy.wait(30)))
    uploading = asyncio.create_task(replica.put(url, b"a"))
    try:
        await eventually(lambda: len(shop.blobs()) == 1)
        assert await shop.files.clean(shop.clock.now + LEFTOVER_SECONDS + 60) == 0
    finally:
        busy.set()
    assert (await uploading).status_code == 200
    await holding
    await replica.finish(claim)
    assert await shop.read(output(claim, "a")) == b"a"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_an_earlier_start_left_goes_at_the_first_look_and_nothing_else(shop: Shop, replica: Replica) -> None:
    claim = await replica.take_new()
    await replica.upload(claim, "a", b"a")
    for left in ("blobs/files/00/leftover", "uploads/files/project/leftover"):
        path = shop.folder / left
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert await shop.clean() == 0, "it could be under way"
    assert await restart(shop) == 2
    await replica.finish(claim)
    assert await shop.read(output(claim, "a")) == b"a"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_where_servers_share_the_storage_a_new_one_leaves_alone_what_others_may_have_under_way(
    shop: Shop,
) -> None:
    for under_way in ("blobs/files/00/other", "uploads/files/project/other"):
        path = shop.folder / under_way
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    shop.clock.now = time.time() + 1
    service = FileService(shop.database, shop.storage, lambda: "http://shop", clock=shop.clock, storage_is_shared=True)
    assert await service.clean(shop.clock.now) == 0
    assert await service.clean(shop.clock.now + LEFTOVER_SECONDS) == 2
