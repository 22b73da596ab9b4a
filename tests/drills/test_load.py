"""Many jobs, four worker processes, and one thing after another that breaks; see `drill.py` for what must hold."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drills.drill import MODEL, Drill
from platform_process import PlatformProcess, wait_for
from postgres_cluster import PostgresCluster

# Each has bounds of its own; this one is for what they do not see.
pytestmark = pytest.mark.timeout(300)

FULL_SECONDS = 3.0
AWAY_SECONDS = 20.0


@pytest.fixture(params=["sqlite", "postgres"])
def drill(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Drill]:
    """A platform with its workers, on each store."""
    process = PlatformProcess(tmp_path / "platform")
    process.folder.mkdir()
    if request.param == "postgres":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        process.environment["MACHINESHOP_DATABASE_URL"] = cluster.create_database()
    process.start()
    drill = Drill(process, tmp_path)
    drill.deploy()
    yield drill
    process.close()


def test_kill_9_of_workers(drill: Drill) -> None:
    with drill.load():
        drill.break_at_random(8, 0.3, drill.kill_a_worker)
    drill.settle()
    outcomes = drill.check()
    assert outcomes["lose"] > 0


def test_kill_9_of_the_server(drill: Drill) -> None:
    def kill_and_restart() -> None:
        drill.platform.kill()
        drill.platform.start()

    with drill.load():
        drill.break_at_random(5, 0.4, kill_and_restart)
    drill.settle()
    drill.check()


def test_a_worker_is_stopped_past_its_claim_and_goes_on(drill: Drill) -> None:
    with drill.load():
        drill.wait_for_progress(0.2)
        stopped = drill.kill_a_worker(signal.SIGSTOP)
        wait_for(lambda: drill.rows("SELECT 1 FROM attempts WHERE outcome = 'lose'"), "its claims run out", every=0.25)
        os.kill(stopped, signal.SIGCONT)
    drill.settle()
    outcomes = drill.check()
    assert outcomes["lose"] > 0


def test_the_database_is_away(postgres: PostgresCluster, tmp_path: Path) -> None:
    process = PlatformProcess(tmp_path / "platform")
    process.folder.mkdir()
    process.environment["MACHINESHOP_DATABASE_URL"] = postgres.create_database()
    process.start()
    drill = Drill(process, tmp_path)
    try:
        drill.deploy()
        with drill.load():
            drill.wait_for_progress(0.3)
            postgres.stop()
            with process.client() as client:
                began = time.monotonic()
                answer = client.post("/v1/queue/submit", json={"model": MODEL, "payload": {"number": -1}})
                assert answer.status_code == 503
                assert time.monotonic() - began < 15
            time.sleep(AWAY_SECONDS)
            postgres.start()
        drill.settle()
        drill.check()
    finally:
        process.close()


def test_the_disk_of_the_data_directory_is_full(small_disk: Path, tmp_path: Path) -> None:
    process = PlatformProcess(small_disk)
    process.start()
    drill = Drill(process, tmp_path)
    try:
        drill.deploy()
        with drill.load():
            drill.wait_for_progress(0.2)
            _fill(small_disk / "filler")
            refused = wait_for(lambda: _refusal(process), "a submit is refused for want of room")
            assert refused in {503, 507}
            time.sleep(FULL_SECONDS)
            for name in ("filler", "more"):
                (small_disk / name).unlink()
        drill.settle()
        drill.check()
    finally:
        process.close()


def _fill(path: Path) -> None:
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


def _refusal(process: PlatformProcess) -> int | None:
    """The status with which a submit is refused, as soon as one is."""
    _fill(process.folder / "more")  # what was freed meanwhile
    with process.client() as client:
        answer = client.post("/v1/queue/submit", json={"model": MODEL, "payload": {"number": -1, "pad": "x" * 200_000}})
    return None if answer.status_code == 200 else answer.status_code
