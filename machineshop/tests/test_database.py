"""The store's threads: callers share commits and nothing else, and a broken disk is said plainly."""

import asyncio
import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, func, select

from machineshop.errors import Conflict, StoreUnavailable
from machineshop.store.database import Database, sqlite_file, sqlite_url
from machineshop.store.schema import config, current_revision, known_revisions, migrate
from machineshop.store.tables import metadata, settings
from machineshop.store.wal import BUSY_TIMEOUT_SECONDS, LogNotOnDisk


def put(conn: Connection, name: str, *, error: Exception | None = None) -> str:
    conn.execute(settings.insert().values(name=name, value="x"))
    if error is not None:
        raise error
    return name


def names(conn: Connection) -> set[str]:
    return set(conn.execute(select(settings.c.name)).scalars())


async def test_callers_in_one_commit_do_not_spoil_one_another(database: Database) -> None:
    good = [database.write(put, f"good-{number}") for number in range(50)]
    refused = [database.write(put, f"bad-{n}", error=Conflict(message="no")) for n in range(50)]
    twice = [database.write(put, "good-0") for _ in range(3)]
    defects = [database.write(put, f"defect-{n}", error=KeyError("k")) for n in range(3)]
    results = await asyncio.gather(*good, *refused, *twice, *defects, return_exceptions=True)
    assert results[:50] == [f"good-{number}" for number in range(50)]
    assert all(isinstance(result, Exception) for result in results[50:])
    assert all(isinstance(result, Conflict) for result in results[50:100])
    assert await database.read(names) == {f"good-{number}" for number in range(50)}


async def test_a_read_sees_every_acknowledged_write(database: Database) -> None:
    for number in range(20):
        await database.write(put, f"n-{number}")
        count = await database.read(lambda conn: conn.execute(select(func.count()).select_from(settings)).scalar())
        assert count == number + 1


async def test_a_caller_that_goes_away_leaves_the_others_alone(database: Database) -> None:
    leaving = asyncio.ensure_future(database.write(put, "left"))
    staying = asyncio.ensure_future(database.write(put, "stayed"))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == "stayed"


async def test_a_locked_database_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machineshop.store.engines.BUSY_TIMEOUT_SECONDS", 0.05)
    url = sqlite_url(tmp_path / "locked.db")
    migrate(url)
    database = Database(url)
    database.start()
    other = create_engine(url, connect_args={"isolation_level": None})
    with other.connect() as conn:
        conn.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await database.write(put, "a")
        conn.exec_driver_sql("ROLLBACK")
    assert await database.write(put, "a") == "a"
    other.dispose()
    await asyncio.to_thread(database.close)


async def test_a_hand_over_comes_in_the_turn_of_its_commit_and_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "quick.db")
    migrate(url)
    database = Database(url)
    database.start()
    await database.write(put, "first")
    handed: list[str] = []
    pending = asyncio.ensure_future(database.write_handing_over("queue", handed.append, put, "second"))
    await asyncio.sleep(0)  # one turn of the loop: the write begins, and is committed in it
    assert handed == ["second"]
    assert await pending == "second"
    with pytest.raises(Conflict):
        await database.write_handing_over("queue", handed.append, put, "third", error=Conflict(message="no"))
    assert handed == ["second"]
    await asyncio.to_thread(database.close)
    with sqlite3.connect(tmp_path / "quick.db") as conn:
        assert sorted(name for (name,) in conn.execute("SELECT name FROM settings")) == ["first", "second"]
    conn.close()


async def test_a_hand_over_never_has_the_event_loop_wait_for_another_process(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "held.db")
    migrate(url)
    database = Database(url)
    database.start()
    await database.write(put, "first")
    other = create_engine(url, connect_args={"isolation_level": None})
    handed: list[str] = []
    with other.connect() as conn:
        conn.exec_driver_sql("BEGIN IMMEDIATE")
        began = time.monotonic()
        pending = asyncio.ensure_future(database.write_handing_over("queue", handed.append, put, "second"))
        await asyncio.sleep(0.2)
        assert time.monotonic() - began < BUSY_TIMEOUT_SECONDS / 2, "the loop has not waited for the lock"
        assert not pending.done()
        conn.exec_driver_sql("ROLLBACK")
    assert await pending == "second"
    assert handed == ["second"]
    other.dispose()
    await asyncio.to_thread(database.close)


class SlowDisk:
    """Takes the log when it is let, or refuses it."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writable = threading.Event()
        self.refuses = False
        log = database._engines.log
        assert log is not None
        self._sync = log.sync
        monkeypatch.setattr(log, "sync", self.sync)

    def sync(self) -> None:
        assert self.writable.wait(60)
        if self.refuses:
            raise LogNotOnDisk("The disk refused to keep the job (no space left on device).")
        self._sync()


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Database]:
    url = sqlite_url(tmp_path / "embedded.db")
    migrate(url)
    database = Database(url)
    database.start()
    await database.write(put, "first")
    yield database
    await asyncio.to_thread(database.close)


async def test_what_somebody_has_read_is_on_disk(embedded: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(embedded, monkeypatch)
    pending = [asyncio.ensure_future(embedded.write_briefly("queue", put, name)) for name in ("second", "third")]
    await asyncio.sleep(0)
    assert embedded.read_now(names) == {"first", "second", "third"}  # both are committed while the disk is slow
    looks = [asyncio.ensure_future(embedded.read_briefly(names)), asyncio.ensure_future(embedded.read(names))]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in [*pending, *looks])
    disk.writable.set()
    assert await asyncio.gather(*pending) == ["second", "third"]
    assert await asyncio.gather(*looks) == [{"first", "second", "third"}] * 2
    assert await embedded.read_briefly(names) == {"first", "second", "third"}


async def test_what_the_thread_hands_over_is_on_disk_before_somebody_reads_it(
    embedded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(embedded, monkeypatch)
    handed: list[str] = []
    with embedded._writer._turn:  # as while the thread commits for others
        pending = asyncio.ensure_future(embedded.write_handing_over("queue", handed.append, put, "second"))
        await asyncio.sleep(0.05)
    while not handed:
        await asyncio.sleep(0.01)
    looks = [asyncio.ensure_future(embedded.read_briefly(names)), asyncio.ensure_future(embedded.read(names))]
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in [pending, *looks])
    disk.writable.set()
    assert await pending == "second"
    assert await asyncio.gather(*looks) == [{"first", "second"}] * 2


async def test_what_is_found_in_a_transaction_is_on_disk_when_it_is_told(
    embedded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(embedded, monkeypatch)
    first = asyncio.ensure_future(embedded.write_handing_over("queue", lambda _: None, put, "second"))
    second = asyncio.ensure_future(embedded.write(names))  # as a submit whose key stands for a job already
    await asyncio.sleep(0.2)
    assert not first.done()
    assert not second.done()
    disk.writable.set()
    assert await first == "second"
    assert await second == {"first", "second"}


async def test_what_is_committed_for_many_is_synced_by_the_commit_and_what_is_committed_at_once_after_it(
    embedded: Database,
) -> None:
    def level(conn: Connection) -> object:
        return conn.exec_driver_sql("PRAGMA synchronous").scalar()

    full, normal = 2, 1
    assert await embedded.write(level) == full
    assert await embedded.write_briefly("queue", level) == normal
    assert await embedded.write(level) == full


async def test_a_database_may_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "elsewhere" / "real.db")
    url = sqlite_url(tmp_path / "link.db")
    migrate(url)
    database = Database(url)
    database.start()
    assert await database.write_briefly("queue", put, "first") == "first"
    assert await database.read_briefly(names) == {"first"}
    assert sqlite_file(url) == tmp_path / "elsewhere" / "real.db"  # what servers lock
    await asyncio.to_thread(database.close)


async def test_a_disk_that_refuses_the_log_is_told_to_all_who_count_on_it(
    embedded: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(embedded, monkeypatch)
    disk.refuses = True
    disk.writable.set()
    for call in (embedded.write_briefly("queue", put, "second"), embedded.read(names), embedded.read_briefly(names)):
        with pytest.raises(StoreUnavailable, match="no space left"):
            await call
    disk.refuses = False
    assert await embedded.read_briefly(names) == {"first", "second"}
    assert await embedded.write_briefly("queue", put, "third") == "third"


class DroppingDisk:
    """A disk whose syncs of the log fail when told to, under a kernel that takes the pages for written from then on.

    So Linux does it. What a sync that failed was to put on disk is not put there by the next one, unless it is written
    once more.
    """

    def __init__(self, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._log = log
        self._seen = self.on_disk = log.read_bytes()
        self._written: set[int] = set()
        self._pwrite = os.pwrite
        self.refusals = 0
        monkeypatch.setattr("machineshop.store.wal.os.fdatasync", self.sync)
        monkeypatch.setattr("machineshop.store.wal.os.pwrite", self.write)

    def write(self, fd: int, data: bytes, offset: int) -> int:
        self._written.update(range(offset, offset + len(data)))
        return self._pwrite(fd, data, offset)

    def sync(self, _fd: int) -> None:
        now = self._log.read_bytes()
        dirty = {at for at in range(len(now)) if now[at : at + 1] != self._seen[at : at + 1]} | self._written
        self._seen, self._written = now, set()
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EIO, "Input/output error")
        kept = bytearray(self.on_disk.ljust(len(now), b"\0"))
        for at in dirty:
            kept[at] = now[at]
        self.on_disk = bytes(kept)

    def after_a_power_failure(self, folder: Path) -> set[str]:
        """What a machine finds that lost its power now."""
        found = folder / "found.db"
        found.write_bytes(self._log.with_name(self._log.name.removesuffix("-wal")).read_bytes())
        (folder / "found.db-wal").write_bytes(self.on_disk)
        conn = sqlite3.connect(found)
        try:
            return {name for (name,) in conn.execute("SELECT name FROM settings")}
        finally:
            conn.close()
            for path in folder.glob("found.db*"):
                path.unlink()


async def test_after_a_sync_that_failed_nothing_is_acknowledged_that_is_not_on_disk(
    embedded: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = DroppingDisk(tmp_path / "embedded.db-wal", monkeypatch)
    assert await embedded.read(names) == {"first"}, "a reader's connection, with which the log stays"
    assert await embedded.write_briefly("queue", put, "second") == "second"
    assert disk.after_a_power_failure(tmp_path) == {"first", "second"}

    disk.refusals = 2
    for call in (embedded.write_briefly("queue", put, "third"), embedded.read(names)):
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            await call
    assert await embedded.write_briefly("queue", put, "fourth") == "fourth"
    assert {"first", "second", "fourth"} <= disk.after_a_power_failure(tmp_path)
    assert await embedded.read(names) == disk.after_a_power_failure(tmp_path), "whatever became of the third"
    assert await embedded.write_briefly("queue", put, "fifth") == "fifth"
    assert "fifth" in disk.after_a_power_failure(tmp_path)


@pytest.mark.parametrize("reading", [False, True], ids=["commit", "checkpoint"])
async def test_what_sqlite_itself_could_not_sync_is_put_right_before_the_next_commit(
    embedded: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, reading: bool
) -> None:
    refusal = sqlite3.OperationalError("disk I/O error")
    refusal.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    if reading:
        checkpointer = embedded._writer._checkpointer
        assert checkpointer is not None
        with monkeypatch.context() as patch:
            patch.setattr(checkpointer, "_engine", Refusing(refusal))
            checkpointer._due.set()
            while not checkpointer._log.in_doubt:
                await asyncio.sleep(0.01)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(embedded._engines, "commit", Refusing(refusal).connect)
            with pytest.raises(StoreUnavailable, match="disk I/O"):
                await embedded.write(put, "second")
    assert await embedded.write(put, "third") == "third"
    assert "store.log_put_right" in caplog.text
    assert await embedded.read(names) == {"first", "third"}


class Refusing:
    """Whatever is asked of it fails."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def connect(self, *_: object) -> None:
        raise self._error


LOST_LOG = """
import asyncio, os, sys
from machineshop.store import wal
from machineshop.store.database import Database, sqlite_file
from machineshop.store.tables import settings

def put(conn, name):
    conn.execute(settings.insert().values(name=name, value="x"))

def refuse(fd):
    log = sqlite_file(sys.argv[1]).with_name("lost.db-wal")
    with log.open("r+b") as file:  # the page is read from the disk again, where it never came to
        file.seek(log.stat().st_size - 4096)
        file.write(bytes(4096))
    raise OSError(5, "Input/output error")

async def main():
    database = Database(sys.argv[1])
    database.start()
    await database.write(lambda conn: put(conn, "kept"))
    os.fdatasync = refuse
    for name in ("lost", "more"):
        try:
            await database.write_briefly("queue", put, name)
        except Exception as error:
            print(error, flush=True)

asyncio.run(main())
"""


def test_a_log_that_the_kernel_has_dropped_ends_the_server_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "lost.db")
    migrate(url)
    ended = subprocess.run(
        [sys.executable, "-c", LOST_LOG, url], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, "Input/output error" in ended.stdout) == (74, True), ended.stderr
    assert "lost.db-wal, and it is not what was committed any more. The server ends" in ended.stderr
    database = Database(url)
    assert database.read_now(names) == {"kept"}
    database.close()


async def test_a_database_that_cannot_be_opened_is_said_to_be_so(tmp_path: Path) -> None:
    database = Database(sqlite_url(tmp_path / "nowhere" / "missing.db"))
    with pytest.raises(StoreUnavailable):
        await database.read_briefly(names)
    database.close()


async def test_one_that_is_refused_on_the_event_loop_changes_nothing(database: Database) -> None:
    with pytest.raises(Conflict):
        await database.write_briefly("queue", put, "bad", error=Conflict(message="no"))
    assert await database.write_briefly("queue", put, "good") == "good"
    assert await database.read_briefly(names) == {"good"}
    with pytest.raises(ZeroDivisionError):
        await database.read_briefly(lambda _: 1 // 0)
    assert await database.read_briefly(names) == {"good"}


async def test_a_closed_store_refuses_writes(database: Database) -> None:
    await asyncio.to_thread(database.close)
    with pytest.raises(StoreUnavailable):
        await database.write(put, "late")


async def test_whoever_comes_while_the_store_is_closed_is_answered(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "closing.db")
    migrate(url)

    async def go_on(database: Database, kind: int) -> None:
        number = 0
        while number := number + 1:
            if kind == 0:
                await database.write_handing_over("queue", lambda _: None, put, f"{id(database)}-{number}")
            else:
                await database.read(names)

    for _ in range(10):
        database = Database(url)
        database.start()
        callers = [asyncio.ensure_future(go_on(database, kind)) for kind in (0, 1, 1)]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(database.close)
        done, left = await asyncio.wait(callers, timeout=60)
        assert not left
        assert len([caller.exception() for caller in done]) == 3


KILLED_WRITER = """
import asyncio, sys
from machineshop.store.database import Database
from machineshop.store.tables import settings

async def main():
    database = Database(sys.argv[1])
    database.start()
    for number in range(100000):
        name = f"n-{number}"
        await database.write(lambda conn: conn.execute(settings.insert().values(name=name, value="x")) and None)
        print(name, flush=True)

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "killed.db")
    migrate(url)
    writer = subprocess.Popen([sys.executable, "-c", KILLED_WRITER, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(50)]
    os.kill(writer.pid, 9)
    acknowledged += writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    database = Database(url)
    assert set(acknowledged) <= database.read_now(names)
    database.close()


def test_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "new.db")
    migrate(url)
    migrate(url)  # a second time changes nothing
    engine = create_engine(url)
    with engine.connect() as conn:
        assert compare_metadata(MigrationContext.configure(conn), metadata) == []
    engine.dispose()


def test_the_files_of_migrations_are_named_by_their_revisions(tmp_path: Path) -> None:
    engine = create_engine(sqlite_url(tmp_path / "empty.db"))
    with engine.connect() as conn:
        scripts = ScriptDirectory.from_config(config(conn))
        assert current_revision(conn) is None
    engine.dispose()
    assert known_revisions() == sorted(script.revision for script in scripts.walk_revisions())
    assert [known_revisions()[-1]] == scripts.get_heads()


def test_a_start_on_sqlite_loads_no_tool_for_migrations_and_no_other_driver(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "new.db")
    migrate(url)
    migrating = f"import machineshop.app; from machineshop.parts import migrate; migrate({url!r})"
    code = f"import sys; {migrating}; print(*({{'alembic', 'psycopg'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "\n"


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "newer.db")
    migrate(url)
    engine = create_engine(url)
    with engine.begin() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(StoreUnavailable, match="newer machineshop"):
        migrate(url)
