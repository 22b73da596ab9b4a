"""A server whose disk is full: it starts, says so, and goes on once there is room."""

import asyncio
import errno
import sqlite3
from pathlib import Path

import httpx
import pytest

from machineshop.app import Platform
from machineshop.config import Settings
from machineshop.datadir import DataDir, DataDirInUse
from machineshop.errors import StoreUnavailable
from machineshop.store.database import Database, sqlite_url
from machineshop.store.schema import migrate

DEPLOYMENTS = "/v1/deployments"
BLOCK_BYTES = 4096


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(BLOCK_BYTES))
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return filler


def fresh(disk: Path) -> Platform:
    return Platform(Settings(data_dir=disk / "data", port=0, runtime="process"))


@pytest.fixture(autouse=True)
def _contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIG_CONTEXTS", str(tmp_path / "contexts.json"))


async def test_a_server_starts_on_a_full_disk(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    platform = fresh(small_disk)
    await platform.start()
    # As where a server is killed: the last one to close takes SQLite's log away.
    other = sqlite3.connect(platform.data_dir.database)
    other.execute("SELECT count(*) FROM projects").fetchall()
    await platform.stop(end_replicas=True)
    filler = fill(small_disk)
    platform = fresh(small_disk)
    await platform.start()
    other.close()
    assert "address.not_written" in caplog.text
    async with httpx.AsyncClient(
        base_url=platform.base_url, headers={"Authorization": f"Bearer {platform.admin_key}"}, verify=False
    ) as client:
        assert (await client.get(DEPLOYMENTS)).status_code == 200
        filler.unlink()
        answer = await client.post("/v1/projects", json={"slug": "another"})
        assert answer.status_code == 200, answer.text
    await platform.stop(end_replicas=True)


async def test_a_data_directory_is_opened_on_a_full_disk(small_disk: Path) -> None:
    data_dir = DataDir(small_disk / "data")
    data_dir.open()
    data_dir.close()
    filler = fill(small_disk)
    data_dir.open()  # who holds it is not known, but that somebody does
    with pytest.raises(DataDirInUse):
        DataDir(small_disk / "data").open()
    data_dir.close()
    filler.unlink()


async def test_a_database_says_that_there_is_no_room(small_disk: Path) -> None:
    """Where a server that ended well is to start again; it then needs room for SQLite's log."""
    url = sqlite_url(small_disk / "machineshop.db")
    migrate(url)
    database = Database(url)
    database.start()
    await database.write(lambda _: None)
    await asyncio.to_thread(database.close)
    filler = fill(small_disk)
    with pytest.raises(StoreUnavailable, match=r"machineshop\.db is full: make room on it\.$"):
        migrate(url)
    filler.unlink()
    migrate(url)
