"""The logs' route, through a real socket: what a client reads, and that nobody else waits for it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette

from factory import ADMIN_KEY, eventually
from machineshop.api.deployments import runtime_routes
from machineshop.api.endpoint import Api
from machineshop.models import DEFAULT_SLUG, Deployment, Scope
from machineshop.runtime.base import LogLine, Replica
from machineshop.runtime.fake import FakeEngine, FakeRuntime
from machineshop.runtime.logs import read_merged
from machineshop.runtime.replica_log import READ_BYTES, FileLog
from machineshop.runtime.shim import Log
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.secrets import SecretService
from machineshop.services.volumes import VolumeService
from migrated import migrated_sqlite
from runtime.harness import Watcher


class OneLog(FakeRuntime):
    """A runtime whose only replica has its log in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(Watcher(), FakeEngine())
        self.folder, self.over, self.rounds = folder, False, 0

    def logs(
        self,
        deployment_id: str,
        replica_id: str | None,
        *,
        tail: int | None,
        follow: bool,
        since: float = 0.0,
        wanted: Callable[[Replica], bool] | None = None,
    ) -> AsyncIterator[LogLine]:
        def is_over() -> bool:
            self.rounds += 1
            return self.over

        return read_merged(
            lambda: ["r"], lambda name: FileLog(self.folder, name), is_over, tail=tail, follow=follow, since=since
        )

    async def rests(self) -> bool:
        """Whether nothing is read for a while."""
        before = self.rounds
        await asyncio.sleep(0.3)
        return self.rounds == before


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One kind of database is enough: it only tells who calls."""
    return migrated_sqlite(tmp_path)


@pytest.fixture
def runtime(tmp_path: Path) -> OneLog:
    (tmp_path / "r").mkdir()
    return OneLog(tmp_path / "r")


@pytest.fixture
async def session(
    identity: IdentityService,
    deployments: DeploymentService,
    secrets: SecretService,
    volumes: VolumeService,
    deployment: Deployment,
    runtime: OneLog,
) -> AsyncIterator[aiohttp.ClientSession]:
    app = Starlette(routes=runtime_routes(Api(identity), deployments, secrets, runtime, volumes))
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    base = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/deployments/{deployment.name}/"
    async with aiohttp.ClientSession(base, headers={"Authorization": f"Bearer {ADMIN_KEY}"}) as session:
        yield session
    server.should_exit = True
    await serving


def write(folder: Path, text: bytes) -> None:
    with closing(Log(str(folder), 200 * 2**20)) as log:
        log.take(text)


async def test_lines_followed_come_many_in_one_piece_each_an_object(
    session: aiohttp.ClientSession, runtime: OneLog
) -> None:
    write(runtime.folder, b"".join(b"%d\n" % number for number in range(5000)))
    async with asyncio.timeout(60), session.get("logs?follow=true&tail=2000") as answer:
        pieces = 0
        text = b""
        while text.count(b"\n") < 2000:
            text += await answer.content.readany()
            pieces += 1
        write(runtime.folder, b"one more\n")
        text += await answer.content.readline()
        runtime.over = True
        assert await answer.content.read() == b""
    assert pieces < 50
    lines = [msgspec.json.decode(line)["lines"] for line in text.splitlines()]
    assert lines == [[str(number)] for number in range(3000, 5000)] + [["one more"]]


async def test_nothing_is_followed_with_a_key_that_has_ended(
    session: aiohttp.ClientSession, runtime: OneLog, identity: IdentityService
) -> None:
    key, text = await identity.create_key(DEFAULT_SLUG, "revoked", Scope.VIEWER)
    write(runtime.folder, b"one\n")
    headers = {"Authorization": f"Bearer {text}"}
    async with asyncio.timeout(60), session.get("logs?follow=true", headers=headers) as answer:
        assert b"one" in await answer.content.readline()
        await identity.revoke_key(key.id)
        write(runtime.folder, b"two\n")
        assert await answer.content.read() == b""


@pytest.mark.parametrize("count", [0, 1, 2001])
async def test_lines_not_followed_are_one_object(session: aiohttp.ClientSession, runtime: OneLog, count: int) -> None:
    expected = [f'a "line" {number}' for number in range(count)]
    write(runtime.folder, "".join(f"{line}\n" for line in expected).encode())
    async with session.get("logs?tail=10000") as answer:
        assert answer.content_type == "application/json"
        assert await answer.json() == {"lines": expected}


async def test_lines_since_a_moment_alone(session: aiohttp.ClientSession, runtime: OneLog) -> None:
    now = time.time()
    ages_seconds = [7200, 3601, 3500, 30, 1]
    (runtime.folder / "log.0").write_text("".join(f"{now - age:.3f} {age} ago\n" for age in ages_seconds))
    hour_ago = datetime.fromtimestamp(now - 3600, UTC).isoformat()
    for since, expected in {"1h": ages_seconds[2:], hour_ago: ages_seconds[2:], "2m": [30, 1], "0.5": []}.items():
        async with session.get("logs", params={"since": since}) as answer:
            assert await answer.json() == {"lines": [f"{age} ago" for age in expected]}
    async with session.get("logs", params={"since": "1h", "tail": "2"}) as answer:
        assert await answer.json() == {"lines": ["30 ago", "1 ago"]}
    for wrong in ("yesterday", "2030-13-01"):
        async with session.get("logs", params={"since": wrong}) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["param"] == "since"


async def test_many_long_lines_leave_the_loop_to_others(session: aiohttp.ClientSession, runtime: OneLog) -> None:
    write(runtime.folder, (b"\x01" * 2_000 + b"\n") * 10_000)  # each of these becomes six characters
    longest, size = 0.0, 0

    async def read() -> int:
        async with session.get("logs?tail=10000") as answer:
            return sum([len(piece) async for piece in answer.content.iter_any()])

    async with asyncio.timeout(60):
        reading = asyncio.create_task(read())
        while not reading.done():
            began = time.process_time()  # whatever others do on this machine meanwhile
            await asyncio.sleep(0.001)
            longest = max(longest, time.process_time() - began)
        size = await reading
    assert size > 6 * 2_000 * 10_000
    assert longest < 0.5


async def test_no_more_is_read_than_a_slow_reader_takes_and_nothing_once_it_hangs_up(
    session: aiohttp.ClientSession, runtime: OneLog
) -> None:
    async def rests() -> None:
        async with asyncio.timeout(60):
            while not await runtime.rests():
                pass

    async with session.get("logs?follow=true&tail=0") as answer:
        await eventually(lambda: runtime.rounds > 0)  # its place is the end of what there is
        write(runtime.folder, (b"x" * 16_000 + b"\n") * 6000)
        await answer.content.readany()
        await rests()
        # What a round reads at most, that often: far less than there is. The rest waits in the kernel's buffers.
        assert runtime.rounds * READ_BYTES < 60 * 2**20
        answer.close()
    await rests()
