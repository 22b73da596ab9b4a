"""Leases in the store: one holder at a time, by the database's clock."""

import asyncio

import pytest
from sqlalchemy import Connection, select, update

from machineshop.errors import LeaseLost
from machineshop.store import leases
from machineshop.store.database import Database
from machineshop.store.leases import Tenure
from machineshop.store.tables import leases as rows


async def take(database: Database, server: str, seconds: float = 60, former: str | None = None) -> Tenure:
    return await database.aside(5, leases.take, "control", server, f"http://{server}", seconds, former)


async def expire(database: Database) -> None:
    await database.write(lambda conn: conn.execute(update(rows).values(expires_at=0.0)).rowcount)


async def test_one_server_at_a_time_has_it(database: Database) -> None:
    first = await take(database, "a")
    assert (first.holder, first.base_url) == ("a", "http://a")
    assert 59 < first.seconds_left <= 60
    assert (await take(database, "b")).holder == "a"
    assert (await take(database, "a", 90)).seconds_left > 80, "the holder renews it"


async def test_one_that_has_run_out_is_anybodys(database: Database) -> None:
    await take(database, "a")
    await expire(database)
    assert (await take(database, "b")).holder == "b"
    assert (await take(database, "a")).holder == "b"


async def test_of_several_that_want_it_at_once_one_gets_it(database_url: str, database: Database) -> None:
    others = [Database(database_url) for _ in range(4)]
    got = await asyncio.gather(*(take(other, str(number)) for number, other in enumerate(others)))
    assert len({tenure.holder for tenure in got}) == 1
    for other in others:
        await asyncio.to_thread(other.close)


async def test_a_server_that_starts_again_goes_on_with_its_own(database: Database) -> None:
    await take(database, "before")
    assert (await take(database, "after", former="before")).holder == "after"
    assert (await take(database, "before")).holder == "after"


async def test_one_that_is_given_back_is_told_of_and_free(database: Database) -> None:
    told = asyncio.Event()
    database.on_announced(leases.LEASES, told.set)
    await take(database, "a")
    await database.write(leases.give_back, "control", "b")  # not its own
    assert (await take(database, "b")).holder == "a"
    assert not told.is_set()
    await database.write(leases.give_back, "control", "a")
    await asyncio.wait_for(told.wait(), 60)
    assert (await take(database, "b")).holder == "b"


async def test_the_check_refuses_a_transaction_without_the_lease(database: Database) -> None:
    def guarded(conn: Connection, server: str) -> str:
        leases.check(conn, "control", server)
        return "done"

    with pytest.raises(LeaseLost):
        await database.write(guarded, "a")
    await take(database, "a")
    assert await database.write(guarded, "a") == "done"
    with pytest.raises(LeaseLost):
        await database.write(guarded, "b")
    await expire(database)
    with pytest.raises(LeaseLost):
        await database.write(guarded, "a")
    assert await database.read(lambda conn: conn.execute(select(rows.c.holder)).scalar()) == "a"
