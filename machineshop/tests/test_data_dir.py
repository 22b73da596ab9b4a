"""The data directory and the storage directory: whose they are, and what is said where they cannot be used."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from machineshop.commands.on_store import NoPlatform, on_store
from machineshop.datadir import DatabaseInUse, DataDir, DataDirInUse, StorageUnusable
from machineshop.store.database import Database


def test_bytes_lie_in_the_data_directory_unless_told_otherwise(tmp_path: Path) -> None:
    plain = DataDir(tmp_path / "plain")
    plain.open()
    assert {path.name for path in plain.path.iterdir()} >= {"blobs", "uploads", "runtime"}
    plain.close()
    apart = DataDir(tmp_path / "apart", tmp_path / "storage")
    apart.open()
    assert {path.name for path in apart.storage.iterdir()} == {"blobs", "uploads"}
    assert not (apart.path / "blobs").exists()
    apart.close()


def test_a_data_directory_is_one_servers_and_a_storage_directory_many(tmp_path: Path) -> None:
    first = DataDir(tmp_path / "a", tmp_path / "storage")
    second = DataDir(tmp_path / "b", tmp_path / "storage")
    first.open()
    second.open()
    with pytest.raises(DataDirInUse):
        DataDir(tmp_path / "a", tmp_path / "storage").open()
    first.close()
    second.close()


def test_a_storage_directory_keeps_its_id_however_many_ask_first(tmp_path: Path) -> None:
    dirs = [DataDir(tmp_path / str(number), tmp_path / "storage") for number in range(8)]
    for each in dirs:
        each.open()
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda each: each.storage_id(), dirs))
    assert len(ids) == 1
    assert DataDir(tmp_path / "0", tmp_path / "other").storage == tmp_path / "other"
    assert sorted(path.name for path in (tmp_path / "storage").iterdir()) == ["blobs", "storage-id", "uploads"]
    for each in dirs:
        each.close()


def test_a_storage_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageUnusable, match="--storage-dir"):
        DataDir(tmp_path / "data", tmp_path / "file").open()
    again = DataDir(tmp_path / "data")
    again.open()
    again.close()


def test_a_database_in_a_file_is_one_servers_whatever_their_data_directories(tmp_path: Path) -> None:
    first, second = DataDir(tmp_path / "a"), DataDir(tmp_path / "b")
    first.open()
    second.open()
    first.lock_database(tmp_path / "shared.db")
    with pytest.raises(DatabaseInUse, match="Postgres"):
        second.lock_database(tmp_path / "shared.db")
    first.close()
    second.lock_database(tmp_path / "shared.db")
    second.close()


def test_a_command_beside_the_server_makes_no_platform_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(database: Database) -> None:
        raise AssertionError("there is no store")

    monkeypatch.delenv("MACHINESHOP_DATABASE_URL", raising=False)
    with pytest.raises(NoPlatform, match=r"no platform's data in .*--data-dir"):
        on_store(tmp_path / "elsewhere", work)
    assert not (tmp_path / "elsewhere").exists()
