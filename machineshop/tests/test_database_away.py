"""A Postgres that is away, stands still or cuts us off: everybody gets an answer soon, and it heals by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import psycopg
import pytest
from sqlalchemy import Connection, func, select

from machineshop.errors import CommitUnknown, InvalidRequest, StoreUnavailable
from machineshop.store import engines
from machineshop.store.database import READ_SECONDS, Database
from machineshop.store.schema import migrate
from machineshop.store.tables import settings
from postgres_cluster import PostgresCluster
from postgres_proxy import PostgresProxy

NewDatabase = Callable[[str], Database]


def put(conn: Connection, name: str) -> str:
    conn.execute(settings.insert().values(name=name, value="x"))
    return name


def count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(settings)).scalar_one()


def append(conn: Connection, name: str) -> None:
    conn.execute(settings.update().where(settings.c.name == name).values(value=settings.c.value + "x"))


@pytest.fixture
def url(postgres: PostgresCluster) -> str:
    url = postgres.create_database()
    migrate(url)
    return url


@pytest.fixture
def proxy(url: str) -> Iterator[PostgresProxy]:
    proxy = PostgresProxy(url)
    yield proxy
    proxy.close()


@pytest.fixture
async def new_database() -> AsyncIterator[NewDatabase]:
    databases: list[Database] = []

    def new(url: str) -> Database:
        databases.append(Database(url))
        databases[-1].start()
        return databases[-1]

    yield new
    for database in databases:
        await asyncio.to_thread(database.close)


async def test_connections_that_were_ended_are_made_again(url: str, new_database: NewDatabase) -> None:
    database = new_database(url)
    await database.write(put, "a")
    assert await database.read(count) == 1
    end_connections(url)
    assert await database.write(put, "b") == "b"
    assert await database.read(count) == 2


async def test_while_it_is_away_everybody_is_told_at_once(
    postgres: PostgresCluster, url: str, new_database: NewDatabase
) -> None:
    database = new_database(url)
    await database.write(put, "a")
    postgres.stop()
    try:
        began = time.monotonic()
        calls = [database.write(put, str(number)) for number in range(100)]
        reads = [database.read(count) for _ in range(100)]
        answers = await asyncio.gather(*calls, *reads, return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}
        assert all("\n" not in str(answer) for answer in answers)
        assert time.monotonic() - began < READ_SECONDS, "nobody has waited for a bound"
    finally:
        postgres.start()
    await eventually_works(database)
    assert await database.read(count) == 2


async def test_a_database_that_stands_still_is_given_up(
    proxy: PostgresProxy, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("machineshop.store.writer.TRANSACTION_SECONDS", 0.3)
    monkeypatch.setattr("machineshop.store.database.READ_SECONDS", 0.3)
    database = new_database(f"{proxy.url}?connect_timeout=2")
    await database.write(put, "a")
    await database.read(count)
    proxy.halt()
    calls = [database.write(put, "b"), database.read(count), database.aside(0.2, count)]
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers), answers
    proxy.go_on()
    await eventually_works(database)


async def test_a_server_that_hangs_in_a_transaction_keeps_a_queue_only_for_a_moment(
    url: str, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = new_database(url)
    with monkeypatch.context() as patch:
        patch.setitem(engines.SESSION_LIMITS, "idle_in_transaction_session_timeout", 500)
        hanging = new_database(url)
        assert await hanging.write(count) == 0
    locked, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(conn: Connection) -> None:
        loop.call_soon_threadsafe(locked.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(60)
        put(conn, "late")

    stuck = asyncio.ensure_future(hanging.write_in_queue("q", hang))
    await locked.wait()
    assert await asyncio.wait_for(other.write_in_queue("q", put, "quick"), 60) == "quick"
    go_on.set()
    with pytest.raises(StoreUnavailable):
        await stuck
    assert await other.read(count) == 1, "what hung was taken back"
    assert await hanging.write_in_queue("q", put, "again") == "again"


async def test_who_waits_too_long_for_a_queue_is_told(
    url: str, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.SESSION_LIMITS, "lock_timeout", 300)
    database = new_database(url)
    with psycopg.connect(url) as conn:
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (engines.lock_key("q"),))
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await database.write_in_queue("q", put, "a")
        assert await database.write_in_queue("another", put, "b") == "b"
    assert await database.write_in_queue("q", put, "a") == "a"


async def test_a_commit_whose_answer_is_lost_is_said_to_be_in_doubt(
    proxy: PostgresProxy, url: str, new_database: NewDatabase
) -> None:
    database = new_database(proxy.url)
    await database.write(put, "a")
    proxy.cut_after(b"COMMIT")
    with pytest.raises(CommitUnknown, match="not known whether"):
        await database.write_in_queue("q", put, "b")
    with psycopg.connect(url) as conn:
        assert conn.execute("SELECT count(*) FROM settings").fetchone() == (2,), "and it was done"
    await eventually_works(database)


async def test_a_connection_that_breaks_before_the_commit_changes_nothing(
    proxy: PostgresProxy, url: str, new_database: NewDatabase
) -> None:
    database = new_database(proxy.url)
    await database.write(put, "a")
    proxy.cut_after(b"INSERT")
    with pytest.raises(StoreUnavailable, match="Nothing was changed") as raised:
        await database.write(put, "b")
    assert not isinstance(raised.value, CommitUnknown)
    await eventually_works(database)
    with psycopg.connect(url) as conn:
        assert conn.execute("SELECT count(*) FROM settings WHERE name = 'b'").fetchone() == (0,)


async def test_of_two_servers_that_wait_for_each_other_one_begins_anew(url: str, new_database: NewDatabase) -> None:
    first, second = new_database(url), new_database(url)
    for name in ("a", "b"):
        await first.write(put, name)
    met = {"a": asyncio.Event(), "b": asyncio.Event()}
    loop = asyncio.get_running_loop()
    tries: list[str] = []

    def both(conn: Connection, mine: str, theirs: str) -> None:
        tries.append(mine)
        append(conn, mine)
        if len(tries) <= 2:
            loop.call_soon_threadsafe(met[mine].set)
            asyncio.run_coroutine_threadsafe(met[theirs].wait(), loop).result(60)
        append(conn, theirs)

    await asyncio.gather(first.write(both, "a", "b"), second.write(both, "b", "a"))
    assert len(tries) >= 3
    values = await first.read(lambda conn: list(conn.execute(select(settings.c.value)).scalars()))
    assert values == ["xxx", "xxx"], "each was done once"


async def test_a_value_that_the_database_cannot_keep_is_the_callers_fault(database: Database) -> None:
    if database.is_shared:
        good = [database.write(put, f"good-{number}") for number in range(5)]
        bad = database.write(put, "a\0b")
        answers = await asyncio.gather(*good, bad, return_exceptions=True)
        assert answers[:5] == [f"good-{number}" for number in range(5)]
        assert isinstance(answers[5], InvalidRequest)
        with pytest.raises(InvalidRequest):
            await database.read(lambda conn: conn.execute(select(settings.c.name).where(settings.c.name == "\0")).all())
        with pytest.raises(InvalidRequest):
            await database.write(put, "\0")
    assert await database.write(put, "after") == "after"


def end_connections(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def eventually_works(database: Database) -> None:
    """Both ways, after at most the moment in which nobody tries."""

    async def works() -> bool:
        try:
            await database.write(put, f"again-{time.monotonic()}")
            await database.read(count)
        except StoreUnavailable:
            return False
        return True

    async with asyncio.timeout(60):
        while not await works():
            await asyncio.sleep(0.05)
