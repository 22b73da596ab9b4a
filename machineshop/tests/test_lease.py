"""The lease on the control loops: who runs them, and who must not."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from factory import eventually
from machineshop.control.lease import Lease, LeaseTimes
from machineshop.control.loop import Loop
from machineshop.errors import LeaseLost, StoreUnavailable
from machineshop.store.database import Database, sqlite_url
from machineshop.store.leases import Tenure
from machineshop.store.schema import migrate
from machineshop.store.tables import settings

QUICK = LeaseTimes(lease=3.0, renew=0.25, answer=2.0, retry=0.05, margin=0.3, look=0.2)
"""Soon over, where that is waited for."""
UNHURRIED = LeaseTimes(lease=600.0, renew=0.05, answer=60.0, retry=0.05, margin=300.0, look=0.05)
"""Never over by itself, however long this machine halts."""


class Notes:
    """A tenant that takes note of what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def take_up(self) -> None:
        self.told.append("take up")

    async def pause(self) -> None:
        self.told.append("pause")

    async def stand_down(self) -> None:
        self.told.append("stand down")


class Server:
    """A server's database and lease, whose clock the test can move: what a halt of the process looks like to it."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self.database.start()
        self.skipped_seconds = 0.0
        self.notes = Notes()
        self.lease = self.new_lease()

    def new_lease(self, former: str | None = None, times: LeaseTimes = QUICK) -> Lease:
        name = f"http://{self.database.server_id}"
        return Lease(self.database, lambda: name, former, clock=self.now, times=times)

    def now(self) -> float:
        return time.monotonic() + self.skipped_seconds

    async def start(self) -> None:
        await self.lease.start(self.notes)

    async def close(self) -> None:
        await self.database.hang_up()
        await self.lease.give_back()
        await asyncio.to_thread(self.database.close)


NewServer = Callable[[], Server]


@pytest.fixture
async def new_server(postgres_url: str) -> AsyncIterator[NewServer]:
    servers: list[Server] = []

    def new() -> Server:
        servers.append(Server(postgres_url))
        return servers[-1]

    yield new
    for server in servers:
        await server.close()


async def test_the_first_server_holds_it_and_the_second_knows_where_that_is(new_server: NewServer) -> None:
    first, second = new_server(), new_server()
    first.lease, second.lease = first.new_lease(times=UNHURRIED), second.new_lease(times=UNHURRIED)
    await first.start()
    await second.start()
    assert first.lease.held
    assert not second.lease.held
    assert (first.lease.holder_url, second.lease.holder_url) == (None, f"http://{first.database.server_id}")
    assert (first.notes.told, second.notes.told) == (["take up"], ["stand down"])
    runs_out_at = await first.database.read(expires_at)
    async with asyncio.timeout(60):
        while await first.database.read(expires_at) <= runs_out_at:
            await asyncio.sleep(0.01)
    assert first.lease.held, "it renews"
    assert not second.lease.held


async def test_another_server_takes_over_from_one_that_says_nothing_more(new_server: NewServer) -> None:
    first, second = new_server(), new_server()
    await first.start()
    await second.start()
    changed = asyncio.ensure_future(second.lease.changed())
    await stop_dead(first)
    await eventually(lambda: second.lease.held)
    assert second.notes.told == ["stand down", "take up"]
    await asyncio.wait_for(changed, 60)
    assert second.lease.holder_url is None


async def test_one_that_is_given_back_is_taken_at_once(new_server: NewServer) -> None:
    first, second = new_server(), new_server()
    blind = LeaseTimes(lease=600, look=600)
    first.lease, second.lease = first.new_lease(times=blind), second.new_lease(times=blind)
    await first.start()
    await second.start()
    heard = asyncio.Event()
    second.database.listen(lambda _queue: None, heard.set)
    await asyncio.wait_for(heard.wait(), 60)
    await first.lease.give_back()
    assert not first.lease.held
    await eventually(lambda: second.lease.held)


async def test_a_server_that_was_halted_past_its_lease_does_nothing_before_it_has_looked(new_server: NewServer) -> None:
    first, second = new_server(), new_server()
    await first.start()
    await second.start()
    fence = first.lease.fence
    assert fence is not None
    await first.database.write(fence)
    await stop_dead(first)
    await eventually(lambda: second.lease.held)
    # The database is asked too, so a clock that had stood still as well would not let it through.
    first.skipped_seconds = -3600
    first.lease.require()
    with pytest.raises(LeaseLost):
        await first.database.write(fence)
    first.skipped_seconds = 3600
    with pytest.raises(LeaseLost):
        first.lease.require()
    with pytest.raises(LeaseLost):
        await first.database.write(fence)


async def test_a_holder_that_cannot_renew_pauses_in_time_and_goes_on_afterwards(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_server()
    server.lease = server.new_lease(times=UNHURRIED)
    await server.start()

    async def away(*_args: object) -> Tenure:
        raise StoreUnavailable("It is away.")

    with monkeypatch.context() as patch:
        patch.setattr(server.database, "aside", away)
        server.skipped_seconds = UNHURRIED.lease - UNHURRIED.margin + 1  # the database would give it away much later
        await eventually(lambda: server.notes.told == ["take up", "pause"])
        assert not server.lease.held
        assert server.lease.held_seconds == 0
    await eventually(lambda: server.lease.held)
    assert server.notes.told == ["take up", "pause", "take up"]


async def test_a_holder_that_finds_another_one_after_an_outage_stands_down(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = new_server(), new_server()
    await first.start()

    async def away(*_args: object) -> Tenure:
        raise StoreUnavailable("It is away, for this one.")

    with monkeypatch.context() as patch:
        patch.setattr(first.database, "aside", away)
        await second.start()
        await eventually(lambda: second.lease.held)
        assert not first.lease.held, "never both"
    await eventually(lambda: first.lease.holder_url is not None)
    assert first.notes.told == ["take up", "pause", "stand down"]


async def test_a_server_that_starts_again_has_its_lease_at_once(new_server: NewServer) -> None:
    before, after = new_server(), new_server()
    await before.start()
    await stop_dead(before)
    after.lease = after.new_lease(former=before.database.server_id)
    await after.start()
    assert after.lease.held


async def test_a_file_is_always_held(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "alone.db")
    migrate(url)
    server = Server(url)
    await server.start()
    assert server.lease.held
    assert server.lease.fence is None
    assert server.notes.told == ["take up"]
    await server.close()


async def test_a_loop_runs_only_where_the_lease_is_held(new_server: NewServer) -> None:
    first, second = new_server(), new_server()
    await first.start()
    await second.start()
    ran: list[str] = []
    loops = [Loop(name, note(ran, name), 0.01, hold=s.lease) for name, s in (("first", first), ("second", second))]
    for loop in loops:
        loop.start()
    await eventually(lambda: len(ran) > 5)
    assert set(ran) == {"first"}
    await stop_dead(first)
    first.skipped_seconds = 3600  # it wakes up long afterwards
    await eventually(lambda: second.lease.held)
    ran.clear()
    await eventually(lambda: len(ran) > 5)
    assert set(ran) == {"second"}
    for loop in loops:
        await loop.stop()


async def test_what_a_loop_writes_after_the_lease_is_lost_is_refused(new_server: NewServer) -> None:
    server = new_server()
    await server.start()
    answers: list[object] = []

    async def run_once(_now: float) -> None:
        aside = asyncio.create_task(server.database.write(put, "by somebody else"))
        await server.database.aside(5, steal)  # halted here, say, while another server took over
        try:
            await server.database.write(put, "by the loop")
        except LeaseLost as error:
            answers.append(error)
        answers.append(await aside)

    loop = Loop("late", run_once, 60, hold=server.lease)
    loop.start()
    await eventually(lambda: len(answers) == 2)
    await loop.stop()
    assert isinstance(answers[0], LeaseLost)
    assert answers[1] == "by somebody else", "a task that the loop has started speaks for itself"


def note(ran: list[str], name: str) -> Callable[[float], Awaitable[None]]:
    async def run_once(_now: float) -> None:
        ran.append(name)

    return run_once


def put(conn: Connection, name: str) -> str:
    conn.execute(settings.insert().values(name=name, value="x"))
    return name


def expires_at(conn: Connection) -> float:
    return float(conn.exec_driver_sql("SELECT expires_at FROM leases").scalar_one())


def steal(conn: Connection) -> None:
    conn.exec_driver_sql("UPDATE leases SET holder = 'another'")


async def stop_dead(server: Server) -> None:
    """What kill -9, or SIGSTOP, is to a lease: no more renewals."""
    assert server.lease._task is not None
    server.lease._task.cancel()
    await asyncio.gather(server.lease._task, return_exceptions=True)
